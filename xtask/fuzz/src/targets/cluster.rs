//! What a service of isp modules or a client of one sends: streams and messages are read or refused within their bounds, what is made of
//! lists can be dialled and shown, and secrets stay hidden.

use sd_cluster::fuzzing::{MOST_BYTES, read_hosts, read_message, read_routes, read_stream};
use sd_cluster::hide_secrets;
use sd_core::{ServiceName, Snapshot};

use crate::plant::is_planted;

pub(super) fn run(data: &[u8]) {
    for is_service in [false, true] {
        for message in read_stream(data, is_service) {
            assert!(message.len() <= MOST_BYTES);
            let _ = read_message(&message);
        }
    }
    if let Some((name, _, data)) = read_message(data) {
        assert!(!name.windows(2).any(|two| two == b"||"));
        assert!(!is_planted() || data.len() <= 3);
    }
    let service = ServiceName::new("s").expect("a name");
    for set in [read_hosts(&service, data), read_routes(&service, data)] {
        set.iter().for_each(check);
    }
    if let Ok(hidden) = hide_secrets(data) {
        // Not the same text: a number of many digits may be read and written another way.
        hide_secrets(hidden.as_bytes()).expect("it was JSON before");
    }
}

fn check(set: &Snapshot) {
    for instance in set.instances() {
        let endpoint = instance.endpoint().to_string();
        assert_eq!(instance.id().as_str(), endpoint);
        assert!(instance.endpoint().port().is_some_and(|port| port > 0));
    }
    for skipped in set.skipped() {
        assert!(!skipped.key.contains(char::is_control), "{skipped:?}");
    }
}
