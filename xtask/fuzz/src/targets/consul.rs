//! Consul's answer for a service: read twice it is the same set, and every instance is of the service.

use sd_consul::fuzzing::read_health;
use sd_core::ServiceName;

use crate::plant::is_planted;

pub(super) fn run(data: &[u8]) {
    let service = ServiceName::new("s").expect("a name");
    let Ok(set) = read_health(&service, data, None) else {
        return;
    };
    let again = read_health(&service, data, Some(&set)).expect("it was read before");
    assert!(again.is_same_set(&set));
    assert!(again.withdrawn().is_empty());
    for instance in set.instances() {
        assert_eq!(*instance.service(), service);
        assert!(!is_planted() || instance.weight() <= 3);
    }
}
