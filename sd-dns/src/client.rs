//! Questions to resolvers and their answers. Knows nothing of discovery.

pub(crate) mod answer;
pub(crate) mod channel;
pub(crate) mod datagrams;
pub(crate) mod destination;
pub(crate) mod error;
pub(crate) mod resolver;
pub(crate) mod system;
pub(crate) mod tls;

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use sd_backend::{CloseSignal, FileThread};
use sd_core::sync::lock;
use sd_core::{ErrorKind, Result};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

use crate::client::answer::{Answer, MOST_ALIASES, Step, circle};
use crate::client::destination::Destination;
use crate::client::error::Failure;
use crate::client::resolver::MOST_IN_FLIGHT;
use crate::client::system::{Paths, Stamps};
use crate::client::tls::Tls;
use crate::config::DnsConfig;
use crate::config::rules::RULES;
use crate::config::validation::Settings;

/// How long all questions of one read may take together.
pub(crate) const READ_WITHIN: Duration = Duration::from_secs(30);
/// How often the system's files are looked at, while names are asked.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// For how long a question waits for that: files can hang.
const LOOK_WITHIN: Duration = Duration::from_secs(1);
/// How long the first look may take.
const READ_FILES_WITHIN: Duration = Duration::from_secs(5);
/// What is read from files.
const FILES: &str = "ca, /etc/resolv.conf and /etc/hosts";

/// The client of one set of resolvers.
#[derive(Debug)]
pub(crate) struct Client {
    settings: Settings,
    tls: Tls,
    paths: Paths,
    files: FileThread,
    destination: Mutex<Current>,
    in_flight: Semaphore,
    pub(crate) signal: CloseSignal,
}

/// Where questions go now.
#[derive(Debug)]
struct Current {
    destination: Arc<Destination>,
    stamps: Stamps,
    looked_at: Instant,
}

impl Client {
    /// Reads the system's files if no resolver is named, and the file of authorities if one is; blocks while it does, but no longer than
    /// [`READ_FILES_WITHIN`].
    ///
    /// # Errors
    /// `InvalidInput` names the setting that is wrong or whose file cannot be read.
    pub(crate) fn new(config: DnsConfig) -> Result<Self> {
        Self::with_paths(config, Paths::default())
    }

    pub(crate) fn with_paths(config: DnsConfig, paths: Paths) -> Result<Self> {
        let settings = config.clone().checked()?;
        let of_system = settings.resolvers.is_empty().then(|| paths.clone());
        let (tls, system) = RULES.read_within(FILES, READ_FILES_WITHIN, move || {
            let tls = Tls::read(&config)?;
            Ok((tls, of_system.map(|paths| (paths.stamps(), paths.read()))))
        })?;
        let (stamps, destination) = match system {
            Some((stamps, files)) => (stamps, Destination::of_system(files, &settings, &tls)?),
            None => (Stamps::default(), Destination::named(&settings, &tls)?),
        };
        Ok(Self {
            settings,
            tls,
            paths,
            files: FileThread::default(),
            destination: Mutex::new(Current {
                destination: Arc::new(destination),
                stamps,
                looked_at: Instant::now(),
            }),
            in_flight: Semaphore::new(MOST_IN_FLIGHT),
            signal: CloseSignal::new(),
        })
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Waits until `at`, unless the client is closed before. Cancel-safe.
    ///
    /// # Errors
    /// `Closed`.
    pub(crate) async fn wait_until(&self, op: &'static str, at: Instant) -> Result<()> {
        let waiting = async {
            sleep_until(at).await;
            Ok(())
        };
        self.signal.unless_closed(op, waiting).await
    }

    /// Asks all questions of `work`, unless the client is closed before that is done. Cancel-safe if `work` is.
    ///
    /// # Errors
    /// `Closed`, `Timeout` if it takes longer than [`READ_WITHIN`], or those of `work`.
    pub(crate) async fn within_limit<T>(
        &self,
        op: &'static str,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let limited = async {
            timeout(READ_WITHIN, work).await.unwrap_or_else(|_| {
                let why = format!("the answers took longer than {READ_WITHIN:?} together");
                Err(Failure::new(ErrorKind::Timeout, why).of(op))
            })
        };
        self.signal.unless_closed(op, limited).await
    }

    /// Asks for records of these types: the file of hosts first, then resolvers, for each name that `name` can stand for. Returns the
    /// answers for the first such name that has any record, or of which that is not known, in the order of the types. Cancel-safe.
    pub(crate) async fn lookup(
        &self,
        name: &Name,
        types: &[RecordType],
    ) -> Vec<Result<Answer, Failure>> {
        let destination = self.destination().await;
        if let Some(answers) = of_hosts(&destination, name, types) {
            return answers;
        }
        let mut answers = Vec::new();
        for candidate in destination.candidates(name) {
            let asked = types
                .iter()
                .map(|wanted| self.resolve(&destination, &candidate, *wanted));
            answers = join_all(asked).await;
            let is_none =
                |answer: &Result<Answer, Failure>| matches!(answer, Ok(Answer::None { .. }));
            if !answers.iter().all(is_none) {
                break;
            }
        }
        answers
    }

    /// Follows aliases to the end.
    async fn resolve(
        &self,
        destination: &Destination,
        name: &Name,
        wanted: RecordType,
    ) -> Result<Answer, Failure> {
        let (mut asked, mut most, mut aliases) = (name.clone(), u32::MAX, 0);
        while aliases <= MOST_ALIASES {
            match self.ask(destination, &asked, wanted).await? {
                Step::Answer(answer) => return Ok(answer.for_at_most(most)),
                Step::Alias { to, ttl, followed } => {
                    (asked, most, aliases) = (to, most.min(ttl), aliases + followed);
                }
            }
        }
        Err(circle(name))
    }

    /// Asks when few enough questions are under way. How long that takes is limited by the caller: a service may need many.
    async fn ask(
        &self,
        destination: &Destination,
        name: &Name,
        wanted: RecordType,
    ) -> Result<Step, Failure> {
        // It is never closed.
        let _permit = self.in_flight.acquire().await.ok();
        destination.ask(name, wanted).await
    }

    /// Where questions go. Looks at the system's files now and then, beside the runtime.
    async fn destination(&self) -> Arc<Destination> {
        let stamps = {
            let mut current = lock(&self.destination);
            if !self.settings.resolvers.is_empty() || current.looked_at.elapsed() < LOOK_EVERY {
                return Arc::clone(&current.destination);
            }
            // Others need not look meanwhile.
            current.looked_at = Instant::now();
            current.stamps
        };
        let paths = self.paths.clone();
        let look = self.files.run("dns: read files", move || {
            let now = paths.stamps();
            (now != stamps).then(|| (now, paths.read()))
        });
        let changed = match timeout(LOOK_WITHIN, look).await {
            Ok(Ok(changed)) => changed,
            Ok(Err(error)) => {
                warn!(error = %error.report(), "cannot look at the system's files");
                None
            }
            Err(_) => {
                warn!("the system's files hang: the last known resolvers and hosts are used");
                None
            }
        };
        let mut current = lock(&self.destination);
        if let Some((stamps, files)) = changed {
            match Destination::of_system(files, &self.settings, &self.tls) {
                Ok(destination) => {
                    info!(resolvers = ?destination.resolvers(), "the system's resolvers or hosts have changed");
                    current.destination = Arc::new(destination);
                    current.stamps = stamps;
                }
                Err(error) => warn!(error = %error.report(), "cannot use the system's resolvers"),
            }
        }
        Arc::clone(&current.destination)
    }
}

/// What the file of hosts says. Its entries may change at any time, and cost nothing to read.
fn of_hosts(
    destination: &Destination,
    name: &Name,
    types: &[RecordType],
) -> Option<Vec<Result<Answer, Failure>>> {
    let files = destination.system()?;
    let found = types.iter().map(|wanted| files.hosts(name, *wanted));
    let found: Vec<_> = found.collect();
    if found.iter().all(Vec::is_empty) {
        return None;
    }
    let answer = |addresses: Vec<_>| {
        if addresses.is_empty() {
            return Ok(Answer::None {
                exists: true,
                ttl: Some(0),
            });
        }
        Ok(Answer::Found {
            records: addresses.into_iter().map(RData::from).collect(),
            addresses: Vec::new(),
            ttl: 0,
        })
    };
    Some(found.into_iter().map(answer).collect())
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use hickory_resolver::proto::op::{Message, OpCode, ResponseCode};
    use hickory_resolver::proto::rr::Record;
    use hickory_resolver::proto::rr::rdata::A;
    use tokio::net::UdpSocket;
    use tokio::task::JoinSet;

    use super::*;
    use crate::client::system::tests::{files, make_pipes, write};
    use crate::names;

    async fn resolvers(client: &Client) -> Vec<String> {
        let destination = client.destination().await;
        let resolvers = destination.resolvers().iter();
        resolvers.map(|one| one.address().to_string()).collect()
    }

    /// As if so long had passed since the last look.
    fn let_time_pass(client: &Client) {
        let mut current = client.destination.lock().unwrap();
        current.looked_at -= LOOK_EVERY;
    }

    #[tokio::test]
    async fn the_systems_files_are_read_again_when_they_have_changed() {
        let (paths, _folder) = files("nameserver 10.0.0.1\n", "");
        let client = Client::with_paths(DnsConfig::addresses(80), paths.clone()).unwrap();
        assert_eq!(resolvers(&client).await, ["10.0.0.1:53"]);
        let changed = "nameserver 10.0.0.20\nnameserver ::1\n";
        write(&paths, changed, "10.0.0.7 greeter.prod\n");
        assert_eq!(resolvers(&client).await, ["10.0.0.1:53"]);
        let_time_pass(&client);
        assert_eq!(resolvers(&client).await, ["10.0.0.20:53", "[::1]:53"]);
        // Known here, so that no resolver is asked.
        let name = names::parse("greeter.prod").unwrap();
        let types = [RecordType::A, RecordType::AAAA];
        let answers = client.lookup(&name, &types).await;
        let [
            Ok(Answer::Found { records, .. }),
            Ok(Answer::None { exists, .. }),
        ] = &answers[..]
        else {
            panic!("{answers:?}");
        };
        let address = records[0].ip_addr().unwrap().to_string();
        assert_eq!((&*address, *exists), ("10.0.0.7", true));
    }

    #[tokio::test]
    async fn a_pipe_in_the_place_of_a_file_holds_nothing_up() {
        let (paths, folder) = files("nameserver 10.0.0.1\n", "");
        let client = Client::with_paths(DnsConfig::addresses(80), paths.clone()).unwrap();
        make_pipes(folder.path());
        let_time_pass(&client);
        // As if there were no files.
        assert_eq!(resolvers(&client).await, ["127.0.0.1:53"]);
        let client = Client::with_paths(DnsConfig::addresses(80), paths).unwrap();
        assert_eq!(resolvers(&client).await, ["127.0.0.1:53"]);
    }

    #[tokio::test]
    async fn files_that_hang_hold_a_question_up_for_a_moment_and_the_last_resolvers_are_asked() {
        let (paths, _folder) = files("nameserver 10.0.0.1\n", "");
        let client = Client::with_paths(DnsConfig::addresses(80), paths.clone()).unwrap();
        write(&paths, "nameserver 10.0.0.20\n", "");
        let (go, gate) = std::sync::mpsc::channel::<()>();
        let hangs = client.files.run("test", move || gate.recv());
        let asks = async {
            let_time_pass(&client);
            assert_eq!(resolvers(&client).await, ["10.0.0.1:53"]);
            drop(go);
        };
        let _ = tokio::join!(hangs, asks);
        let_time_pass(&client);
        assert_eq!(resolvers(&client).await, ["10.0.0.20:53"]);
    }

    /// Has 10.0.0.7 under `there.b.`, fails for all names in `fails.`, and knows no other name.
    async fn resolver() -> (SocketAddr, JoinSet<()>) {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut question = [0; 512];
            loop {
                let (length, client) = socket.recv_from(&mut question).await.unwrap();
                let asked = Message::from_vec(&question[..length]).unwrap();
                let mut answer = Message::response(asked.metadata.id, OpCode::Query);
                answer.queries.clone_from(&asked.queries);
                let name = asked.queries[0].name().clone();
                let labels = name.to_ascii();
                if labels == "there.b." {
                    let address = RData::A(A::new(10, 0, 0, 7));
                    answer.answers = vec![Record::from_rdata(name, 9, address)];
                } else if labels.ends_with("fails.") {
                    answer.metadata.response_code = ResponseCode::ServFail;
                } else {
                    answer.metadata.response_code = ResponseCode::NXDomain;
                }
                let answer = answer.to_vec().unwrap();
                socket.send_to(&answer, client).await.unwrap();
            }
        });
        (address, serving)
    }

    #[tokio::test]
    async fn search_domains_are_tried_until_one_has_the_name_or_may_have_it() {
        let (address, _serving) = resolver().await;
        for (search, found) in [
            ("a b c", Some("10.0.0.7")),
            ("a c", None),
            ("a fails b", None),
        ] {
            let text = format!("search {search}\noptions ndots:2\n");
            let (paths, _folder) = files(&text, "");
            let client = Client::with_paths(DnsConfig::addresses(80), paths.clone()).unwrap();
            let destination = Destination::new(
                [address].into_iter(),
                Some(paths.read()),
                &client.settings,
                &client.tls,
            );
            client.destination.lock().unwrap().destination = Arc::new(destination.unwrap());
            let name = names::parse("there").unwrap();
            let answers = client.lookup(&name, &[RecordType::A]).await;
            match (&answers[..], found) {
                ([Ok(Answer::Found { records, .. })], Some(found)) => {
                    let address = records[0].ip_addr().unwrap().to_string();
                    assert_eq!(address, found);
                }
                ([Ok(Answer::None { exists: false, .. })], None) if search == "a c" => {}
                // Not known is not the same as not there, and no other name stands for it.
                ([Err(failure)], None) => {
                    assert!(failure.why.contains("there.fails."), "{failure:?}");
                }
                other => panic!("{search}: {other:?}"),
            }
        }
    }

    #[test]
    fn resolvers_that_are_named_are_asked_for_names_as_they_are() {
        let (paths, _folder) = files("search a.b\nnameserver 10.0.0.1\n", "10.0.0.7 greeter\n");
        let config = DnsConfig::addresses(80).with_resolvers(["10.0.0.2"]);
        let client = Client::with_paths(config, paths).unwrap();
        let current = client.destination.lock().unwrap();
        let name = names::parse("greeter").unwrap();
        let candidates = current.destination.candidates(&name);
        assert_eq!(candidates[0].to_ascii(), "greeter.");
        assert_eq!(candidates.len(), 1);
        assert!(current.destination.system().is_none());
    }
}
