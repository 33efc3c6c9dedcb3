//! A client that sends any bytes, and reads frame by frame.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::within;

pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;
/// The last frame of a message.
pub(crate) const FINAL: u8 = 0x80;

/// A frame of the service.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) opcode: u8,
    pub(crate) payload: Vec<u8>,
}

pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
}

/// What the service answers to a request, head and all.
pub(crate) async fn asked(address: SocketAddr, request: &str) -> (Raw, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    let reading = async {
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
    };
    within("an answer", reading).await;
    (Raw { stream }, String::from_utf8(head).unwrap())
}

/// The request of a module.
pub(crate) fn request(query: &str) -> String {
    format!(
        "GET /isp-etp/{query} HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
    )
}

impl Raw {
    pub(crate) async fn connect(address: SocketAddr, module: &str) -> Self {
        let (raw, head) = asked(address, &request(&format!("?module_name={module}"))).await;
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        raw
    }

    /// Sends a masked frame.
    pub(crate) async fn frame(&mut self, first: u8, payload: &[u8]) {
        let mut bytes = vec![first];
        let length = payload.len();
        match length {
            0..126 => bytes.push(0x80 | u8::try_from(length).unwrap()),
            126..65536 => {
                bytes.push(0x80 | 0x7e);
                bytes.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            _ => {
                bytes.push(0x80 | 0x7f);
                bytes.extend(u64::try_from(length).unwrap().to_be_bytes());
            }
        }
        let mask = [1, 2, 3, 4];
        bytes.extend(mask);
        let masked = payload.iter().zip(mask.iter().cycle());
        bytes.extend(masked.map(|(byte, mask)| byte ^ mask));
        self.stream.write_all(&bytes).await.unwrap();
    }

    pub(crate) async fn text(&mut self, message: impl AsRef<[u8]>) {
        self.frame(FINAL | TEXT, message.as_ref()).await;
    }

    /// The next frame. `None` if the service has ended the connection.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        within("a frame", self.read()).await
    }

    async fn read(&mut self) -> Option<Frame> {
        let stream = &mut self.stream;
        let first = stream.read_u8().await.ok()?;
        let length = match stream.read_u8().await.ok()? {
            126 => u64::from(stream.read_u16().await.ok()?),
            127 => stream.read_u64().await.ok()?,
            length => u64::from(length),
        };
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        stream.read_exact(&mut payload).await.ok()?;
        assert_eq!(first & 0xf0, FINAL, "one frame for each message");
        Some(Frame {
            opcode: first & 0x0f,
            payload,
        })
    }

    /// The next message, as text.
    pub(crate) async fn message(&mut self) -> String {
        loop {
            let frame = self
                .next()
                .await
                .expect("the service has ended the connection");
            match frame.opcode {
                PING => {}
                TEXT => return String::from_utf8_lossy(&frame.payload).into_owned(),
                _ => panic!("{frame:?}"),
            }
        }
    }

    /// Sends an event, and returns the answer to it; what comes before is returned as well.
    pub(crate) async fn ask(&mut self, event: &str, data: &str) -> (Vec<String>, String) {
        self.text(format!("{event}||1||{data}")).await;
        let mut before = Vec::new();
        loop {
            let message = self.message().await;
            match message.strip_prefix(&format!("__ack_{event}||1")) {
                Some(answer) => {
                    let answer = answer.strip_prefix("||").unwrap_or(answer);
                    return (before, answer.to_owned());
                }
                None => before.push(message),
            }
        }
    }

    /// Declares an instance.
    pub(crate) async fn ready(&mut self, module: &str, ip: &str) {
        let declared = format!(
            r#"{{"moduleName":"{module}","version":"1","address":{{"ip":"{ip}","port":"9"}}}}"#
        );
        let (_, answer) = self.ask("MODULE:READY", &declared).await;
        assert_eq!(answer, "ok");
    }

    /// Follows a module, and takes the list of now.
    pub(crate) async fn follow(&mut self, module: &str) -> String {
        let wanted = format!(r#"{{"requiredModules":["{module}"],"requireRoutes":false}}"#);
        let (before, answer) = self.ask("MODULE:SEND_REQUIREMENTS", &wanted).await;
        assert_eq!(answer, "ok");
        match &before[..] {
            [list] => list.clone(),
            _ => panic!("{before:?}"),
        }
    }
}
