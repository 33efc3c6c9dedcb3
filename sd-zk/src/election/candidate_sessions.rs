//! The sessions that candidates live in: one for each time-out that an elector's tickets ask for, apart from the registry's.
//!
//! The time-out belongs to a session, and a session costs a connection. So the candidates of one elector with one time-to-live share
//! theirs, which stays for the next ones.
//!
//! A session is timed at the member of the ensemble that leads. A member that follows answers its clients' signs of life by itself, and
//! passes them on when it is next pinged. So the answer to a confirmation proves only the signs of life at least a quarter of the time-out
//! before it. A candidate that joins an old session has none of its own by then. Therefore each session gives some by itself, by a task
//! on the runtime of the candidate that first joined. When that runtime ends, so does the session: its candidates could not be believed.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::client::Client;
use crate::client::session::Session;
use crate::election::keys::history;
use crate::election::token_domain;
use sd_backend::CloseSignal;
use sd_core::clock::{Clock, Moment};
use sd_core::sync::lock;
use sd_core::{Error, ErrorKind, Result};
use tokio::sync::OnceCell;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

const OP: &str = "zk: keep session";
/// Signs of life in each time-out.
const SIGNS: u32 = 6;
/// How long after its answer a sign of life is proven by the answer to a request that is sent then, in time-outs: a quarter, as
/// [`CountsFrom::EarlierSend`](sd_core::port::CountsFrom::EarlierSend) has it, and a little more for the server's clock.
const PROVEN_AFTER: f64 = 0.26;
/// How many signs of life are remembered: the oldest of them is older than what proves it takes.
const REMEMBERED: usize = 3;

/// The sessions of one elector.
#[derive(Debug)]
pub(crate) struct CandidateSessions {
    shared: Arc<Client>,
    clock: Arc<dyn Clock>,
    by_timeout: Mutex<BTreeMap<Duration, Slot>>,
}

/// The session with one time-out, and the next one when it has ended.
#[derive(Debug)]
struct Slot {
    client: Arc<Client>,
    /// Since when there may be a session beside the current one: that which is being made was asked for after this.
    wanted_since: Option<Moment>,
    current: Option<Arc<CandidateSession>>,
}

/// One session, and what is known of its life.
#[derive(Debug)]
pub(crate) struct CandidateSession {
    pub(crate) session: Session,
    /// Not later than the request that made it.
    made: Moment,
    signs: Arc<Mutex<Signs>>,
    /// The name of the history that tokens in this session are of.
    pub(crate) token_domain: OnceCell<Arc<str>>,
    /// Whose end is the session's.
    client: Arc<Client>,
    /// The registry's, for what this session cannot find out.
    shared: Arc<Client>,
    _keeper: AbortOnDropHandle<()>,
}

/// The last signs of life, oldest first.
#[derive(Debug, Default)]
struct Signs(VecDeque<Sign>);

#[derive(Clone, Copy, Debug)]
struct Sign {
    sent: Moment,
    answered: Moment,
}

impl CandidateSessions {
    /// Sessions at the ensemble of the `shared` client, which close with it.
    pub(crate) fn new(shared: Arc<Client>, clock: Arc<dyn Clock>) -> Self {
        Self {
            shared,
            clock,
            by_timeout: Mutex::default(),
        }
    }

    /// The session with this time-out. Makes one if there is none, on the runtime that calls. Cancel-safe.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) async fn get(
        &self,
        op: &'static str,
        timeout: Duration,
    ) -> Result<Arc<CandidateSession>> {
        let (client, wanted_since) = {
            let mut slots = lock(&self.by_timeout);
            slots.retain(|other, slot| *other == timeout || slot.is_in_use());
            let slot = slots.entry(timeout).or_insert_with(|| Slot {
                client: self.shared.sibling(timeout),
                wanted_since: None,
                current: None,
            });
            if let Some(current) = slot.alive() {
                return Ok(current);
            }
            let since = slot.wanted_since.get_or_insert_with(|| self.clock.now());
            (Arc::clone(&slot.client), *since)
        };
        let session = client.session(op).await?;
        let mut slots = lock(&self.by_timeout);
        // Then another call may have begun the next one, which is not to be replaced.
        if session.has_ended() {
            return Err(session.loss(op));
        }
        let slot = slots.entry(timeout).or_insert_with(|| Slot {
            client: Arc::clone(&client),
            wanted_since: None,
            current: None,
        });
        // Another call may have had the same answer.
        let is_same = |current: &Arc<CandidateSession>| current.session.id() == session.id();
        if let Some(current) = slot.alive().filter(is_same) {
            return Ok(current);
        }
        let current = self.begin(client, session, wanted_since);
        slot.wanted_since = None;
        slot.current = Some(Arc::clone(&current));
        Ok(current)
    }

    fn begin(&self, client: Arc<Client>, session: Session, made: Moment) -> Arc<CandidateSession> {
        let signs = Arc::<Mutex<Signs>>::default();
        let kept = Kept(session.clone());
        let keeping = keep(kept, Arc::clone(&self.clock), Arc::clone(&signs));
        Arc::new(CandidateSession {
            session,
            made,
            signs,
            token_domain: OnceCell::new(),
            client,
            shared: Arc::clone(&self.shared),
            _keeper: AbortOnDropHandle::new(tokio::spawn(keeping)),
        })
    }
}

impl Slot {
    /// The current session, unless it has ended.
    fn alive(&self) -> Option<Arc<CandidateSession>> {
        let current = self.current.as_ref();
        let alive = current.filter(|current| !current.session.has_ended());
        alive.map(Arc::clone)
    }

    /// Whether a candidate has the session, or one is being made.
    fn is_in_use(&self) -> bool {
        let own_handles = 1 + usize::from(self.current.is_some());
        let shared = |current: &Arc<CandidateSession>| Arc::strong_count(current) > 1;
        Arc::strong_count(&self.client) > own_handles || self.current.as_ref().is_some_and(shared)
    }
}

impl CandidateSession {
    /// When the latest request was sent that the server has timed for certain, once a request has been answered that was sent at `sent`.
    pub(crate) fn proven(&self, sent: Moment) -> Moment {
        let signs = lock(&self.signs);
        signs
            .proven(sent, self.session.timeout())
            .unwrap_or(self.made)
    }
}

impl CandidateSession {
    /// Whether the registry is closed.
    pub(crate) fn signal(&self) -> &CloseSignal {
        &self.client.signal
    }

    /// The error of a request. If there is no connection, that is why no answer came in time.
    ///
    /// A server that has lost its data turns away clients that have seen more than it has, and does not say that the session is gone. In
    /// that case another session finds it out, and this one ends.
    pub(crate) async fn explained(&self, error: Error) -> Error {
        if error.kind() != ErrorKind::Timeout || self.session.is_connected() {
            return error;
        }
        let op = error.op();
        if self.has_lost_its_history(op).await {
            self.session.end("the server has lost its data");
            return self.session.loss(op);
        }
        Error::new(ErrorKind::Unavailable, op).with_source(error)
    }

    async fn has_lost_its_history(&self, op: &'static str) -> bool {
        let Some(known) = self.token_domain.get() else {
            return false;
        };
        let history = history(&self.shared.config().election_prefix);
        let find = async |session: Session| token_domain::find(&session, op, &history).await;
        let found = self.shared.read(op, find).await;
        found.is_ok_and(|found| found.as_ref() != Some(known))
    }
}

impl Signs {
    fn push(&mut self, sign: Sign) {
        self.0.push_back(sign);
        if self.0.len() > REMEMBERED {
            self.0.pop_front();
        }
    }

    fn proven(&self, sent: Moment, timeout: Duration) -> Option<Moment> {
        let proven_after = timeout.mul_f64(PROVEN_AFTER);
        let proven = |sign: &&Sign| sign.answered + proven_after <= sent;
        self.0.iter().rev().find(proven).map(|sign| sign.sent)
    }
}

/// A session that gives signs of life, which ends with this.
struct Kept(Session);

impl Drop for Kept {
    fn drop(&mut self) {
        self.0
            .end("the runtime that gave its signs of life has ended");
    }
}

/// Gives signs of life until the session ends.
async fn keep(kept: Kept, clock: Arc<dyn Clock>, signs: Arc<Mutex<Signs>>) {
    let session = &kept.0;
    while !session.has_ended() {
        sleep(session.timeout() / SIGNS).await;
        let sent = clock.now();
        let asked = async {
            let client = session.client(OP).await?;
            session.call(OP, client.check_stat("/")).await
        };
        if asked.await.is_ok() {
            let answered = clock.now();
            lock(&signs).push(Sign { sent, answered });
        }
    }
}

#[cfg(test)]
mod tests {
    use sd_core::clock::BootClock;
    use sd_testing::required_env;
    use tokio::runtime::{Builder, Runtime};

    use super::*;
    use crate::config::ZkConfig;

    const TIMEOUT: Duration = Duration::from_secs(10);

    fn runtime() -> Runtime {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(1).enable_all().build().unwrap()
    }

    /// Two runtimes may need a session at the same moment. Then one makes it, and the other one gives its signs of life.
    #[test]
    #[ignore = "needs zk: cargo xtask test --backend zk"]
    fn a_session_ends_with_the_runtime_that_gives_its_signs_of_life() {
        let config = ZkConfig::new([required_env("SD_TEST_ZK").unwrap()]);
        let shared = Arc::new(Client::new(config.checked().unwrap()).unwrap());
        let sessions = CandidateSessions::new(Arc::clone(&shared), Arc::new(BootClock));
        let (first, second) = (runtime(), runtime());
        let client = shared.sibling(TIMEOUT);
        first.block_on(client.session("test")).unwrap();
        let slot = Slot {
            client,
            wanted_since: None,
            current: None,
        };
        lock(&sessions.by_timeout).insert(TIMEOUT, slot);
        let joined = second.block_on(sessions.get("test", TIMEOUT)).unwrap();
        assert!(!joined.session.has_ended());
        drop(second);
        let lost = joined.session.loss("test").report().to_string();
        assert!(
            joined.session.has_ended() && lost.contains("signs of life"),
            "{lost}"
        );
        let next = first.block_on(sessions.get("test", TIMEOUT)).unwrap();
        assert_ne!(next.session.id(), joined.session.id());
    }

    #[test]
    fn a_sign_of_life_is_proven_by_what_is_sent_a_quarter_of_the_time_out_after_its_answer() {
        let at = |seconds: f64| Moment::ZERO + Duration::from_secs_f64(seconds);
        let mut signs = Signs::default();
        assert_eq!(signs.proven(at(9.0), TIMEOUT), None);
        for (sent, answered) in [(10.0, 10.1), (11.7, 12.0), (13.4, 13.5)] {
            signs.push(Sign {
                sent: at(sent),
                answered: at(answered),
            });
        }
        assert_eq!(signs.proven(at(12.0), TIMEOUT), None);
        assert_eq!(signs.proven(at(12.8), TIMEOUT), Some(at(10.0)));
        assert_eq!(signs.proven(at(14.4), TIMEOUT), Some(at(10.0)));
        assert_eq!(signs.proven(at(14.7), TIMEOUT), Some(at(11.7)));
        assert_eq!(signs.proven(at(60.0), TIMEOUT), Some(at(13.4)));
    }

    #[test]
    fn of_all_signs_as_many_are_remembered_as_it_takes_to_have_one_that_is_proven() {
        let mut signs = Signs::default();
        let every = TIMEOUT / SIGNS;
        let mut now = Moment::ZERO;
        for _ in 0..100 {
            now = now + every;
            signs.push(Sign {
                sent: now,
                answered: now,
            });
        }
        assert_eq!(signs.0.len(), REMEMBERED);
        // Between two signs as well as at once after one.
        for part in [0.0, 0.5, 1.0] {
            let sent = now + every.mul_f64(part);
            let proven = signs.proven(sent, TIMEOUT).unwrap();
            assert!(sent.since(proven) < TIMEOUT / 2, "{part}");
        }
    }
}
