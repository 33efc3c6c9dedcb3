//! The readers of what comes from a service, or from a client of one, for `cargo xtask fuzz`.

use bytes::{Bytes, BytesMut};
use sd_core::clock::Moment;
use sd_core::{Revision, ServiceName, Snapshot};
use tokio_util::codec::Decoder;
use tungstenite::protocol::Role;

use crate::client::session::parse;
use crate::codec::{set_of_hosts, set_of_routes};
use crate::etp::frame::{Frame, FrameCodec};
use crate::etp::message::Message;

/// As much as a message may have here: less than in use, so that the limit is tried.
pub const MOST_BYTES: usize = 4096;

/// The name, the id and the data of a message of ETP.
pub fn read_message(bytes: &[u8]) -> Option<(Vec<u8>, i64, Vec<u8>)> {
    let message = Message::decode(&Bytes::copy_from_slice(bytes)).ok()?;
    let again = Message::decode(&message.encode());
    assert_eq!(
        again.as_ref(),
        Ok(&message),
        "what is written reads otherwise"
    );
    let answer = message.answer(message.data.clone());
    assert!(answer.is_answer() && answer.ack_id == message.ack_id);
    Some((message.name.to_vec(), message.ack_id, message.data.to_vec()))
}

/// The messages that the end of a client, or that of a service, sees in a stream of WebSocket.
pub fn read_stream(bytes: &[u8], is_service: bool) -> Vec<Vec<u8>> {
    let role = if is_service {
        Role::Server
    } else {
        Role::Client
    };
    let mut codec = FrameCodec::new(role, MOST_BYTES);
    let mut source = BytesMut::from(bytes);
    let mut messages = Vec::new();
    while let Ok(Some(frame)) = codec.decode(&mut source) {
        let mut written = BytesMut::new();
        let mut other = FrameCodec::new(role, MOST_BYTES);
        let encoded = other.write(frame.clone(), &mut written);
        assert!(
            encoded.is_ok(),
            "what was read cannot be written: {frame:?}"
        );
        if let Frame::Message(message) = frame {
            messages.push(message.to_vec());
        }
    }
    messages
}

/// The set of a service whose addresses are told like this.
///
/// # Errors
/// Why it is no list of addresses.
pub fn read_hosts(service: &ServiceName, json: &[u8]) -> Result<Snapshot, String> {
    Ok(set_of_hosts(service, position(), &parse(json)?))
}

/// The set of a service that these routes tell.
///
/// # Errors
/// Why they are no routes.
pub fn read_routes(service: &ServiceName, json: &[u8]) -> Result<Snapshot, String> {
    Ok(set_of_routes(service, position(), &parse(json)?))
}

fn position() -> (Revision, Moment) {
    (Revision::new("fuzz", 1), Moment::ZERO)
}
