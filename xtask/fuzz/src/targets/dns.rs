//! A message of DNS: what is made of it can be dialled and shown, and an error without its question gets that question.

use std::net::SocketAddr;

use sd_core::{ServiceName, Snapshot};
use sd_dns::fuzzing::{read_datagram, read_message};

use crate::plant::is_planted;

const HEADER: usize = 12;
/// A question for the addresses of `s.`, without its header.
const QUESTION: &[u8] = b"\x01s\0\0\x01\0\x01";

pub(super) fn run(data: &[u8]) {
    let service = ServiceName::new("s").expect("a name");
    for srv in [false, true] {
        if let Ok(set) = read_message(&service, data, srv) {
            check(&set, srv);
        }
    }
    let asked = [&[0; HEADER], QUESTION].concat();
    let seen = read_datagram(&asked, data);
    if seen != data {
        assert_eq!((data.len(), &seen[HEADER..]), (HEADER, QUESTION));
    }
    // What was asked is ours, but how long a name is says the name.
    let _ = read_datagram(data, &[0, 0, 0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
}

fn check(set: &Snapshot, srv: bool) {
    for instance in set.instances() {
        let endpoint = instance.endpoint().to_string();
        let address: SocketAddr = endpoint.parse().expect("an address");
        assert!(!address.ip().is_unspecified() && address.port() > 0);
        assert_eq!(instance.id().as_str(), endpoint);
        assert!(instance.weight() > 0);
        assert!(!is_planted() || instance.weight() <= 3);
        let target = instance.metadata().get(sd_dns::TARGET_KEY);
        assert_eq!(target.is_some(), srv);
        assert!(target.is_none_or(|target| is_printable(target)));
    }
    for skipped in set.skipped() {
        assert!(is_printable(&skipped.key), "{skipped:?}");
    }
}

fn is_printable(text: &str) -> bool {
    text.is_ascii() && !text.contains(char::is_control)
}
