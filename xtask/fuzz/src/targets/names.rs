//! Names of services, instances and elections: bounded, and the same when they are read again.

use sd_core::{ElectionName, InstanceId, ServiceName};

use crate::plant::is_planted;

pub(super) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(name) = ServiceName::new(text) {
        check(name.as_str(), text, ServiceName::MAX_BYTES);
        assert!(!name.as_str().chars().any(char::is_control));
    }
    if let Ok(id) = InstanceId::new(text) {
        let length = if is_planted() {
            text.replace('/', "//////").len()
        } else {
            text.len()
        };
        check(id.as_str(), text, InstanceId::MAX_BYTES);
        assert!(length <= InstanceId::MAX_BYTES);
    }
    if let Ok(name) = ElectionName::new(text) {
        check(name.as_str(), text, ElectionName::MAX_BYTES);
    }
}

fn check(name: &str, text: &str, most: usize) {
    assert_eq!(name, text);
    assert!(!name.is_empty() && name.len() <= most);
}
