//! The newest of what a service has told, for each thing that it tells.
//!
//! Each event is a full set, so that only the newest one counts. This is the bounded queue of a session: one place for each thing that is
//! followed, whatever comes and however slow its reader is.

use std::collections::HashMap;
use std::sync::Mutex;

use bytes::Bytes;
use sd_core::clock::Moment;
use sd_core::sync::lock;
use tokio::sync::watch;

use crate::protocol::events::{
    CONFIG_SEND_CONFIG_CHANGED, CONFIG_SEND_CONFIG_WHEN_CONNECTED, CONFIG_SEND_ROUTES_CHANGED,
    CONFIG_SEND_ROUTES_WHEN_CONNECTED, MODULE_CONNECTED_SUFFIX,
};

/// What a service tells.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Topic {
    /// The configuration of the session's module.
    Config,
    /// All modules.
    Routes,
    /// The addresses of a module.
    Hosts(String),
}

impl Topic {
    /// What an event tells. `None` if it is none of these.
    pub(crate) fn of(event: &str) -> Option<Self> {
        match event {
            CONFIG_SEND_CONFIG_WHEN_CONNECTED | CONFIG_SEND_CONFIG_CHANGED => Some(Self::Config),
            CONFIG_SEND_ROUTES_WHEN_CONNECTED | CONFIG_SEND_ROUTES_CHANGED => Some(Self::Routes),
            _ => {
                let module = event
                    .strip_suffix(MODULE_CONNECTED_SUFFIX)?
                    .strip_suffix('_')?;
                Some(Self::Hosts(module.to_owned()))
            }
        }
    }
}

/// Something that was told.
#[derive(Clone)]
pub(crate) struct Told {
    /// Grows with each thing that is told in a session.
    pub(crate) number: u64,
    pub(crate) as_of: Moment,
    pub(crate) data: Bytes,
}

/// The newest of each topic that is followed.
#[derive(Debug, Default)]
pub(crate) struct Newest(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last_number: u64,
    topics: HashMap<Topic, watch::Sender<Option<Told>>>,
}

impl Newest {
    /// The newest of a topic, and each newer one. What comes before the first call for a topic is not kept.
    pub(crate) fn follow(&self, topic: Topic) -> watch::Receiver<Option<Told>> {
        let mut state = lock(&self.0);
        let place = state.topics.entry(topic);
        place
            .or_insert_with(|| watch::Sender::new(None))
            .subscribe()
    }

    /// Something was told. Returns whether it is followed.
    pub(crate) fn put(&self, topic: &Topic, data: Bytes, as_of: Moment) -> bool {
        let mut state = lock(&self.0);
        state.last_number += 1;
        let number = state.last_number;
        let Some(place) = state.topics.get(topic) else {
            return false;
        };
        place.send_replace(Some(Told {
            number,
            as_of,
            data,
        }));
        true
    }

    /// The number of what was told last, of whatever topic.
    pub(crate) fn last_number(&self) -> u64 {
        lock(&self.0).last_number
    }
}

/// Data is not shown: it may hold secrets.
impl std::fmt::Debug for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Told({}, {} bytes)", self.number, self.data.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_belongs_to_its_topic_or_to_none() {
        let hosts = |module: &str| Some(Topic::Hosts(module.to_owned()));
        for (event, topic) in [
            ("CONFIG:SEND_CONFIG_WHEN_CONNECTED", Some(Topic::Config)),
            ("CONFIG:SEND_CONFIG_CHANGED", Some(Topic::Config)),
            ("CONFIG:SEND_ROUTES_WHEN_CONNECTED", Some(Topic::Routes)),
            ("CONFIG:SEND_ROUTES_CHANGED", Some(Topic::Routes)),
            ("A_MODULE_CONNECTED", hosts("A")),
            ("a_b_MODULE_CONNECTED", hosts("a_b")),
            ("_MODULE_CONNECTED", hosts("")),
            ("MODULE_CONNECTED", None),
            ("NEWS", None),
        ] {
            assert_eq!(Topic::of(event), topic, "{event}");
        }
    }

    #[test]
    fn a_slow_reader_gets_the_newest_and_nothing_else_is_kept() {
        let newest = Newest::default();
        let mut config = newest.follow(Topic::Config);
        for data in ["1", "2", "3"] {
            assert!(newest.put(&Topic::Config, data.into(), Moment::ZERO));
        }
        assert!(!newest.put(&Topic::Routes, "[]".into(), Moment::ZERO));
        let told = config.borrow_and_update().clone().unwrap();
        assert_eq!((told.number, &told.data[..]), (3, &b"3"[..]));
        assert_eq!(newest.last_number(), 4);
        assert!(newest.follow(Topic::Routes).borrow().is_none());
        assert_eq!(format!("{told:?}"), "Told(3, 1 bytes)");
    }
}
