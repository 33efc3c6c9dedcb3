//! An instance as JSON: what is read is written as the same.

use sd_core::Instance;

use crate::plant::is_planted;

pub(super) fn run(data: &[u8]) {
    let Ok(instance) = serde_json::from_slice::<Instance>(data) else {
        return;
    };
    let mut again = instance.clone();
    if is_planted() && again.weight() > 3 {
        again = again.with_weight(3);
    }
    let written = serde_json::to_vec(&again).expect("an instance can be written");
    let read = serde_json::from_slice::<Instance>(&written).expect("it can be read again");
    assert_eq!(read, instance);
}
