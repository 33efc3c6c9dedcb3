//! The sessions that candidates live in, apart from the registry's: one for each time-out that tickets ask for and each runtime that
//! candidates run on.
//!
//! The time-out belongs to a session, and a session costs a connection. So all candidates of a registry with one time-to-live on one
//! runtime share theirs, which stays for the next ones of an elector. On another runtime they have another one: a session ends with the
//! runtime that drives it, and no candidate may lose its term because another one's runtime has ended or is blocked.
//!
//! A session is timed at the member of the ensemble that leads. A member that follows answers its clients' signs of life by itself, and
//! passes them on when it is next pinged. So the answer to a confirmation proves only the signs of life at least a quarter of the time-out
//! before it. A candidate that joins an old session has none of its own by then. Therefore each session gives some by itself.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use crate::client::Client;
use crate::client::session::Session;
use crate::election::keys::history;
use crate::election::token_domain;
use sd_backend::CloseSignal;
use sd_core::clock::{Clock, Moment};
use sd_core::sync::lock;
use sd_core::{Error, ErrorKind, Result};
use tokio::runtime::{self, Handle};
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

/// The sessions of all candidates of one registry, as far as an elector has them.
#[derive(Debug)]
pub(crate) struct CandidateSessions {
    shared: Arc<Client>,
    clock: Arc<dyn Clock>,
    slots: Mutex<HashMap<Key, Weak<Slot>>>,
}

/// The sessions of one elector, which others may have as well.
#[derive(Debug)]
pub(crate) struct ElectorSessions {
    all: Arc<CandidateSessions>,
    slots: Mutex<HashMap<Key, Arc<Slot>>>,
}

/// The runtime that drives a session, and the time-out to ask for.
type Key = (runtime::Id, Duration);

/// The session with one key, and the next one when it has ended.
#[derive(Debug)]
struct Slot {
    client: Arc<Client>,
    /// The registry's.
    shared: Arc<Client>,
    clock: Arc<dyn Clock>,
    current: Mutex<Option<Arc<CandidateSession>>>,
}

/// One session, and what is known of its life.
#[derive(Debug)]
pub(crate) struct CandidateSession {
    pub(crate) session: Session,
    signs: Arc<Mutex<Signs>>,
    /// The name of the history that tokens in this session are of.
    pub(crate) token_domain: OnceCell<Arc<str>>,
    /// Whose end is the session's.
    client: Arc<Client>,
    /// The registry's, for what this session cannot find out.
    shared: Arc<Client>,
    /// What drives it.
    runtime: Handle,
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
            slots: Mutex::default(),
        }
    }

    fn slot(&self, key: Key) -> Arc<Slot> {
        let mut slots = lock(&self.slots);
        slots.retain(|_, slot| slot.strong_count() > 0);
        if let Some(slot) = slots.get(&key).and_then(Weak::upgrade) {
            return slot;
        }
        let (_, timeout) = key;
        let slot = Arc::new(Slot {
            client: self.shared.sibling(timeout, Arc::clone(&self.clock)),
            shared: Arc::clone(&self.shared),
            clock: Arc::clone(&self.clock),
            current: Mutex::default(),
        });
        slots.insert(key, Arc::downgrade(&slot));
        slot
    }
}

impl ElectorSessions {
    pub(crate) fn of(all: Arc<CandidateSessions>) -> Self {
        Self {
            all,
            slots: Mutex::default(),
        }
    }

    /// The session with this time-out on the runtime that calls. Makes one if there is none. Cancel-safe.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) async fn get(
        &self,
        op: &'static str,
        timeout: Duration,
    ) -> Result<Arc<CandidateSession>> {
        let key = (Handle::current().id(), timeout);
        let slot = {
            let mut slots = lock(&self.slots);
            slots.retain(|other, slot| *other == key || slot.is_in_use());
            let slot = slots.entry(key).or_insert_with(|| self.all.slot(key));
            Arc::clone(slot)
        };
        slot.session(op).await
    }
}

impl Slot {
    /// The current session. Makes one if there is none, or if it has ended. Cancel-safe.
    async fn session(&self, op: &'static str) -> Result<Arc<CandidateSession>> {
        if let Some(current) = alive(lock(&self.current).as_ref()) {
            return Ok(current);
        }
        let client = Arc::clone(&self.client);
        let session = client.session(op).await?;
        let mut current = lock(&self.current);
        // Then another call may have begun the next one, which is not to be replaced.
        if session.has_ended() {
            return Err(session.loss(op));
        }
        // Another call may have had the same answer.
        let is_same = |current: &Arc<CandidateSession>| current.session.id() == session.id();
        if let Some(current) = alive(current.as_ref()).filter(is_same) {
            return Ok(current);
        }
        Ok(Arc::clone(current.insert(self.begin(client, session))))
    }

    fn begin(&self, client: Arc<Client>, session: Session) -> Arc<CandidateSession> {
        let signs = Arc::<Mutex<Signs>>::default();
        let keeping = keep(session.clone(), Arc::clone(&self.clock), Arc::clone(&signs));
        Arc::new(CandidateSession {
            session,
            signs,
            token_domain: OnceCell::new(),
            client,
            shared: Arc::clone(&self.shared),
            runtime: Handle::current(),
            _keeper: AbortOnDropHandle::new(tokio::spawn(keeping)),
        })
    }

    /// Whether a candidate has the session, or one is being made.
    fn is_in_use(&self) -> bool {
        let current = lock(&self.current);
        let own_handles = 1 + usize::from(current.is_some());
        let shared = |current: &Arc<CandidateSession>| Arc::strong_count(current) > 1;
        Arc::strong_count(&self.client) > own_handles || current.as_ref().is_some_and(shared)
    }
}

/// The session, unless it has ended.
fn alive(current: Option<&Arc<CandidateSession>>) -> Option<Arc<CandidateSession>> {
    let alive = current.filter(|current| !current.session.has_ended());
    alive.map(Arc::clone)
}

impl CandidateSession {
    /// When the latest request was sent that the server has timed for certain, once a request has been answered that was sent at `sent`.
    pub(crate) fn proven(&self, sent: Moment) -> Moment {
        let signs = lock(&self.signs);
        signs
            .proven(sent, self.session.timeout())
            .unwrap_or(self.session.asked())
    }

    /// Runs what must be done in it although the one who wants it is gone.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        drop(self.runtime.spawn(work));
    }

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

/// Gives signs of life until the session ends.
async fn keep(session: Session, clock: Arc<dyn Clock>, signs: Arc<Mutex<Signs>>) {
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

    fn sessions() -> Arc<CandidateSessions> {
        let config = ZkConfig::new([required_env("SD_TEST_ZK").unwrap()]);
        let shared = Arc::new(Client::new(config.checked().unwrap()).unwrap());
        Arc::new(CandidateSessions::new(shared, Arc::new(BootClock)))
    }

    #[test]
    #[ignore = "needs zk: cargo xtask test --backend zk"]
    fn a_session_is_shared_on_one_runtime_and_ends_with_it_and_no_other_one_does() {
        let sessions = sessions();
        let electors = [0, 1].map(|_| ElectorSessions::of(Arc::clone(&sessions)));
        let get = |runtime: &Runtime, elector: usize, timeout| {
            let got = electors[elector].get("test", timeout);
            runtime.block_on(got).unwrap()
        };
        let (first, second) = (runtime(), runtime());
        let shared = get(&first, 0, TIMEOUT);
        assert!(Arc::ptr_eq(&shared, &get(&first, 1, TIMEOUT)));
        let longer = get(&first, 1, 2 * TIMEOUT);
        let elsewhere = get(&second, 1, TIMEOUT);
        for other in [&longer, &elsewhere] {
            assert_ne!(other.session.id(), shared.session.id());
        }
        drop(first);
        assert!(shared.session.has_ended() && longer.session.has_ended());
        assert!(!elsewhere.session.has_ended());
        let next = get(&second, 0, TIMEOUT);
        assert!(Arc::ptr_eq(&next, &elsewhere));
    }

    #[test]
    #[ignore = "needs zk: cargo xtask test --backend zk"]
    fn a_session_stays_for_the_next_candidates_and_ends_with_the_last_elector() {
        let sessions = sessions();
        let electors = [0, 1].map(|_| ElectorSessions::of(Arc::clone(&sessions)));
        let runtime = runtime();
        let get = |elector: &ElectorSessions, timeout| {
            let got = runtime.block_on(elector.get("test", timeout));
            got.unwrap().session.clone()
        };
        let [one, two] = electors;
        let session = get(&one, TIMEOUT);
        assert_eq!(get(&two, TIMEOUT).id(), session.id());
        drop(one);
        assert_eq!(get(&two, TIMEOUT).id(), session.id());
        // No candidate has it, and the elector wants another one.
        get(&two, 2 * TIMEOUT);
        assert!(session.has_ended());
        let session = get(&two, 2 * TIMEOUT);
        drop(two);
        assert!(session.has_ended());
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
