//! What a process sends to its agent, and what the agent's stream tells it: the first byte says which.

use std::time::SystemTime;

use sd_sidecar::agent::{ConnectionEvent, grpc_methods};
use sd_sidecar::wire::dialect::{Deregister, Drain, Register, Target};
use sd_sidecar::wire::sse::{Frame, Reader};
use sd_sidecar::wire::{format_duration, parse_duration, parse_rfc3339, rfc3339};

use crate::plant::is_planted;

/// Frames longer than this are refused here.
const LIMIT: usize = 256;

pub(super) fn run(data: &[u8]) {
    let Some((what, data)) = data.split_first() else {
        return;
    };
    match what {
        b'r' => register(data),
        b'l' => leave(data),
        b's' => stream(data),
        b'p' => drop(grpc_methods(data)),
        _ => text(data),
    }
}

fn register(body: &[u8]) {
    match Register::parse(body) {
        Ok(read) => {
            assert!(read.port > 0 && read.weight > 0 && !read.methods.is_empty());
            assert!(read.methods.iter().all(|method| method.starts_with('/')));
            assert!(!is_planted() || read.port != 9090);
            if let Ok(declaration) = read.declaration() {
                assert_eq!(Register::of(&declaration), read);
            }
        }
        Err(bad) => check_shown(&bad.to_string()),
    }
}

fn leave(body: &[u8]) {
    match Drain::parse(body) {
        Ok(drain) => assert!(!drain.grace.is_zero()),
        Err(bad) => check_shown(&bad.to_string()),
    }
    match Deregister::parse(body).map(|read| read.target) {
        Ok(Target::Port { service, port }) => assert!(port > 0 && !service.trim().is_empty()),
        Ok(Target::App { app, port, .. }) => {
            assert!(
                port != Some(0)
                    && !app.app_id.trim().is_empty()
                    && !app.app_instance_id.trim().is_empty()
            );
        }
        Err(bad) => check_shown(&bad.to_string()),
    }
}

/// However the bytes are cut, the frames are the same, short, and survive being written.
fn stream(bytes: &[u8]) {
    let whole = frames(&[bytes]);
    let (first, second) = bytes.split_at(bytes.len() / 3);
    assert_eq!(whole, frames(&[first, second]));
    for frame in whole.into_iter().flatten() {
        assert!(frame.id.len() + frame.event.len() + frame.data.len() <= 3 * LIMIT);
        // What would end a line is left out of names, and a line of data ends where it would.
        let ends_no_line = |text: &str| !text.contains(['\r', '\0']);
        if [&frame.id, &frame.event, &frame.data]
            .into_iter()
            .all(|text| ends_no_line(text))
        {
            let read = frames(&[frame.to_string().as_bytes()]);
            assert!(read.is_none_or(|read| read.len() == 1 && read[0].data == frame.data));
        }
        if let Err(error) = ConnectionEvent::of_frame(frame) {
            check_shown(&error.to_string());
        }
    }
}

/// `None` if one is too long.
fn frames(pieces: &[&[u8]]) -> Option<Vec<Frame>> {
    let mut frames = Vec::new();
    let mut reader = Reader::with_limit(LIMIT);
    for piece in pieces {
        reader.push(piece, |frame| frames.push(frame)).ok()?;
    }
    frames.extend(reader.finish());
    Some(frames)
}

fn text(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match parse_duration(&text) {
        Ok(span) => assert_eq!(parse_duration(&format_duration(span)), Ok(span)),
        Err(bad) => check_shown(&bad),
    }
    if let Some(at) = parse_rfc3339(&text) {
        assert!(at >= SystemTime::UNIX_EPOCH);
        assert!(parse_rfc3339(&rfc3339(at)) <= Some(at));
    }
}

fn check_shown(text: &str) {
    assert!(
        text.len() < 2048 && !text.contains(char::is_control),
        "{text:?}"
    );
}
