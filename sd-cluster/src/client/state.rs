//! How the session is, and what was made of what it brought.

use std::collections::BTreeMap;

use sd_core::clock::Moment;
use sd_core::{Error, ErrorKind};
use tokio::sync::watch;

use crate::config::ClusterConfig;
use crate::instrument;
use crate::module::health::{ConfigHealth, ModuleHealth, SessionHealth};

/// What is known of the module's session.
#[derive(Debug)]
pub(crate) struct State {
    module: String,
    told: watch::Sender<Now>,
}

#[derive(Clone, Debug)]
struct Now {
    /// Of the newest session that was begun.
    number: u64,
    session: SessionHealth,
    since: Moment,
    config: ConfigHealth,
    required: BTreeMap<String, Option<usize>>,
}

impl State {
    pub(crate) fn new(config: &ClusterConfig) -> Self {
        let awaited = config.remote_config.is_some();
        let required = config.required_modules.iter();
        let now = Now {
            number: 0,
            session: SessionHealth::NotStarted,
            since: Moment::ZERO,
            config: if awaited {
                ConfigHealth::Awaited
            } else {
                ConfigHealth::None
            },
            required: required.map(|module| (module.clone(), None)).collect(),
        };
        Self {
            module: config.module_name.clone(),
            told: watch::Sender::new(now),
        }
    }

    /// The number of a session that begins. What an older one tells of itself does not count any more.
    pub(crate) fn begin(&self) -> u64 {
        let mut number = 0;
        self.told.send_modify(|now| {
            now.number += 1;
            number = now.number;
        });
        number
    }

    /// A session is established.
    pub(crate) fn established(&self, number: u64, endpoint: &str, at: Moment) {
        self.told.send_if_modified(|now| {
            if now.number != number {
                return false;
            }
            instrument::session(&self.module, true);
            now.session = SessionHealth::Established {
                endpoint: endpoint.to_owned(),
            };
            now.since = at;
            true
        });
    }

    /// There is no session, or not this one any more.
    pub(crate) fn down(&self, number: u64, error: &Error, at: Moment) {
        let error = error.report().to_string();
        self.told.send_if_modified(|now| {
            if now.number != number {
                return false;
            }
            instrument::session(&self.module, false);
            if !matches!(now.session, SessionHealth::Down { .. }) {
                now.since = at;
            }
            now.session = SessionHealth::Down { error };
            for addresses in now.required.values_mut() {
                *addresses = None;
            }
            true
        });
    }

    /// The last configuration was applied, or not for this reason.
    pub(crate) fn config(&self, outcome: Result<(), String>) {
        instrument::config(&self.module, outcome.is_ok());
        self.told.send_modify(|now| {
            let has_earlier = now.config != ConfigHealth::Awaited && now.config.is_usable();
            now.config = match outcome {
                Ok(()) => ConfigHealth::Applied,
                Err(reason) => ConfigHealth::Rejected {
                    reason,
                    has_earlier,
                },
            };
        });
    }

    /// The configuration that was applied last came again, as with each session.
    pub(crate) fn config_came_again(&self) {
        instrument::config_in_use(&self.module, true);
        self.told
            .send_modify(|now| now.config = ConfigHealth::Applied);
    }

    /// The session is let go, without a reason of its own. What is known to have ended it stays.
    pub(crate) fn let_go(&self, number: u64, at: Moment) {
        let is_established = {
            let now = self.told.borrow();
            now.number == number && matches!(now.session, SessionHealth::Established { .. })
        };
        if is_established {
            let error = Error::new(ErrorKind::Closed, "cluster: session");
            self.down(number, &error.because("the session was let go"), at);
        }
    }

    /// A required module has so many addresses.
    pub(crate) fn required(&self, module: &str, addresses: usize) {
        self.told.send_if_modified(|now| {
            let known = now.required.get_mut(module);
            known.is_some_and(|known| known.replace(addresses) != Some(addresses))
        });
    }

    /// How all is now.
    pub(crate) fn health(&self, now: Moment) -> ModuleHealth {
        let state = self.told.borrow().clone();
        ModuleHealth {
            module: self.module.clone(),
            lasting: match state.session {
                SessionHealth::NotStarted => std::time::Duration::ZERO,
                _ => now.since(state.since),
            },
            session: state.session,
            config: state.config,
            required: state.required,
        }
    }

    /// The number of the newest session that was begun.
    pub(crate) fn number(&self) -> u64 {
        self.told.borrow().number
    }

    /// Waits until a module may be announced: the session is established, its configuration in use, and each required module known, and
    /// with an address if that is wanted. Cancel-safe.
    pub(crate) async fn ready(&self, await_required: bool) {
        let mut told = self.told.subscribe();
        let is_ready = |now: &Now| {
            let is_known = |addresses: &Option<usize>| {
                addresses.is_some_and(|count| count > 0 || !await_required)
            };
            matches!(now.session, SessionHealth::Established { .. })
                && now.config.is_usable()
                && now.required.values().all(is_known)
        };
        // Cannot fail: `self` holds the sender.
        let _ = told.wait_for(is_ready).await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::{Received, RemoteConfig};

    fn state() -> State {
        let receiver = async |_: Received<serde_json::Value>| Ok::<(), String>(());
        let config = ClusterConfig::new(["h"])
            .with_module("m")
            .with_required_module("a")
            .with_remote_config(RemoteConfig::new("{}", receiver).unwrap());
        State::new(&config)
    }

    #[test]
    fn a_module_is_ready_when_all_that_it_needs_is_there() {
        let state = state();
        let is_ready = |awaits| state.ready(awaits).now_or_never().is_some();
        let number = state.begin();
        state.established(number, "h:1", Moment::ZERO);
        state.config(Err("no".to_owned()));
        state.required("a", 0);
        assert!(!is_ready(false));
        state.config(Ok(()));
        assert!(is_ready(false) && !is_ready(true));
        state.required("a", 1);
        assert!(is_ready(true));
        state.config(Err("no".to_owned()));
        assert!(is_ready(true));
        state.required("unknown", 1);
        let down = Error::new(ErrorKind::Unavailable, "test");
        state.down(number - 1, &down, Moment::ZERO);
        assert!(is_ready(true));
        state.down(number, &down, Moment::ZERO);
        assert!(!is_ready(false));
        let health = state.health(Moment::ZERO);
        assert_eq!(health.required["a"], None);
        let rejected = ConfigHealth::Rejected {
            reason: "no".to_owned(),
            has_earlier: true,
        };
        assert_eq!(health.config, rejected);
    }
}
