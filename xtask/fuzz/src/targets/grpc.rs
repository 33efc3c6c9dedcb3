//! What a server sends on an HTTP/2 connection: every call ends in time, whatever comes.
//!
//! The first byte of the input says how much the server sends before it has got a request, the second one how much it sends at a time.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sd_core::Instance;
use sd_core::combine::Static;
use sd_grpc::BalancedChannel;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::runtime::Builder;
use tokio::time::timeout;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::plant::is_planted;

const BUFFER: usize = 64 * 1024;
const DEADLINE: Duration = Duration::from_secs(2);
/// The type of a frame of headers, and where it is in the frame.
const HEADERS: u8 = 1;
const TYPE_AT: usize = 3;
const FRAME_HEADER: usize = 9;
/// What a client sends before its first frame.
const PREFACE: usize = 24;

pub(super) fn run(data: &[u8]) {
    let [first, step, bytes @ ..] = data else {
        return;
    };
    let (before, after) = bytes.split_at(usize::from(*first).min(bytes.len()));
    let script = Arc::new(Script {
        before: before.to_vec(),
        after: after.to_vec(),
        step: usize::from(*step).max(1),
        is_used: AtomicBool::new(false),
    });
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O");
    runtime.block_on(call(script));
}

struct Script {
    before: Vec<u8>,
    after: Vec<u8>,
    step: usize,
    is_used: AtomicBool,
}

async fn call(script: Arc<Script>) {
    let instance = Instance::new("s", "127.0.0.1:1").expect("an instance");
    let source = Arc::new(Static::new([instance]).expect("a set"));
    let channel = BalancedChannel::builder(&source, "s")
        .default_deadline(DEADLINE)
        .connector(move |_| {
            let script = Arc::clone(&script);
            async move {
                if script.is_used.swap(true, Ordering::Relaxed) {
                    return Err(io::Error::from(io::ErrorKind::ConnectionRefused));
                }
                let (ours, theirs) = duplex(BUFFER);
                // It ends when the pipe is closed.
                tokio::spawn(serve(theirs, script));
                Ok(ours)
            }
        })
        .build()
        .expect("a channel");
    let mut client = HealthClient::new(channel.clone());
    let answered = timeout(2 * DEADLINE, client.check(HealthCheckRequest::default()));
    let answer = answered.await.expect("a call ends by its deadline");
    if let Err(status) = answer {
        // The corpus has no other answers of a server than these.
        let is_known = matches!(
            status.code(),
            Code::Unavailable | Code::Internal | Code::DeadlineExceeded
        );
        assert!(!is_planted() || is_known);
    }
    timeout(10 * DEADLINE, channel.close())
        .await
        .expect("a channel can be closed");
}

/// Sends what the script says, before and after the first request, and closes the connection.
async fn serve(mut io: DuplexStream, script: Arc<Script>) -> io::Result<()> {
    send(&mut io, &script.before, script.step).await?;
    // Without a request after so long, the client has given up.
    let _ = timeout(DEADLINE, request(&mut io)).await;
    send(&mut io, &script.after, script.step).await?;
    io.shutdown().await
}

async fn send(io: &mut DuplexStream, bytes: &[u8], step: usize) -> io::Result<()> {
    for part in bytes.chunks(step) {
        io.write_all(part).await?;
        tokio::task::yield_now().await;
    }
    Ok(())
}

async fn request(io: &mut DuplexStream) -> io::Result<()> {
    io.read_exact(&mut [0; PREFACE]).await?;
    loop {
        let mut header = [0; FRAME_HEADER];
        io.read_exact(&mut header).await?;
        let [a, b, c, ..] = header;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        io.read_exact(&mut payload).await?;
        if header[TYPE_AT] == HEADERS {
            return Ok(());
        }
    }
}
