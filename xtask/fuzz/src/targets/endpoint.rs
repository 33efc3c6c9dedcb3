//! Addresses: what is shown of one is read as the same.

use sd_core::Endpoint;

use crate::plant::is_planted;

pub(super) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(endpoint) = text.parse::<Endpoint>() else {
        return;
    };
    let mut shown = endpoint.to_string();
    if is_planted() {
        shown = shown.replace(['[', ']'], "");
    }
    assert_eq!(shown.parse::<Endpoint>().ok(), Some(endpoint), "{shown:?}");
}
