//! Keys and channels. Pure functions.
//!
//! The keys of a service share its name in braces, by which a Redis Cluster keeps them together.

use percent_encoding::{AsciiSet, CONTROLS, percent_decode, utf8_percent_encode};
use sd_core::ServiceName;

/// What would end the braces, or the name in a message.
const ENCODED: &AsciiSet = &CONTROLS.add(b'%').add(b'{').add(b'}');

/// Where the records of all services are.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    prefix: String,
}

/// The keys and the channel of one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Keys {
    /// A hash: each record by its id.
    pub(crate) records: String,
    /// A sorted set: when each record ends, in ms of the server's clock.
    pub(crate) ends: String,
    /// A hash: the name of its history, its version, and when its last record was made.
    pub(crate) state: String,
    /// Where its changes are told.
    pub(crate) channel: String,
    /// Where is told which service has got or lost a record.
    pub(crate) list_channel: String,
    /// Its name in the list of services.
    pub(crate) listed_as: String,
}

impl Keys {
    /// Those that every script of a service is given, in their order.
    pub(crate) fn of_service(&self) -> [&str; 3] {
        [&self.records, &self.ends, &self.state]
    }
}

impl Layout {
    pub(crate) fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.to_owned(),
        }
    }

    pub(crate) fn keys(&self, service: &ServiceName) -> Keys {
        let listed_as = utf8_percent_encode(service.as_str(), ENCODED).to_string();
        let stem = format!("{}:{{{listed_as}}}", self.prefix);
        Keys {
            records: format!("{stem}:records"),
            ends: format!("{stem}:ends"),
            state: format!("{stem}:state"),
            channel: format!("{stem}:changes"),
            list_channel: self.list_channel(),
            listed_as,
        }
    }

    /// A sorted set: the services that there may be, and when each one's place here ends.
    pub(crate) fn list(&self) -> String {
        format!("{}:list", self.prefix)
    }

    /// Where is told which service has got or lost a record.
    pub(crate) fn list_channel(&self) -> String {
        format!("{}:list:changes", self.prefix)
    }

    /// The service that is listed under this name. `None` for what is none of ours.
    pub(crate) fn service(listed_as: &[u8]) -> Option<ServiceName> {
        let name = percent_decode(listed_as).decode_utf8().ok()?;
        let is_as_we_write_it = |service: &ServiceName| {
            utf8_percent_encode(service.as_str(), ENCODED)
                .flat_map(str::bytes)
                .eq(listed_as.iter().copied())
        };
        ServiceName::new(name).ok().filter(is_as_we_write_it)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_keys_of_a_service_share_its_name_in_braces() {
        let layout = Layout::new("services");
        let keys = layout.keys(&ServiceName::new("users/v1").unwrap());
        assert_eq!(keys.records, "services:{users/v1}:records");
        assert_eq!(keys.channel, "services:{users/v1}:changes");
        let odd = layout.keys(&ServiceName::new("a}%").unwrap());
        assert_eq!(odd.state, "services:{a%7D%25}:state");
        assert_eq!(layout.list(), "services:list");
    }

    #[test]
    fn what_another_program_lists_is_no_service() {
        for name in [&b""[..], b".", b"a\x1bb", b"a%7d", b"a}", b"\xff"] {
            assert_eq!(Layout::service(name), None, "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn every_name_is_found_again_and_has_keys_of_its_own(a in "[a{}%: ö]{1,6}|\\PC{1,9}", b in "[a{}%: ö]{1,6}") {
            let layout = Layout::new("p");
            let (Ok(a), Ok(b)) = (ServiceName::new(a), ServiceName::new(b)) else { return Ok(()) };
            let (of_a, of_b) = (layout.keys(&a), layout.keys(&b));
            prop_assert_eq!(Layout::service(of_a.listed_as.as_bytes()), Some(a.clone()));
            prop_assert_eq!(a == b, of_a.records == of_b.records);
            let tag = |key: &str| key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag.to_owned());
            prop_assert_eq!(tag(&of_a.records), Some(of_a.listed_as.clone()));
        }
    }
}
