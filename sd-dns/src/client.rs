//! Questions to resolvers and their answers. Knows nothing of discovery.

pub(crate) mod answer;
pub(crate) mod channel;
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
use sd_backend::CloseSignal;
use sd_core::sync::lock;
use sd_core::{ErrorKind, Result};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

use crate::client::answer::{Answer, Step, circle};
use crate::client::destination::Destination;
use crate::client::error::Failure;
use crate::client::resolver::MOST_IN_FLIGHT;
use crate::client::system::{Paths, Stamps};
use crate::client::tls::Tls;
use crate::config::DnsConfig;
use crate::config::validation::Settings;

/// How many aliases are followed from one name.
const MOST_ALIASES: usize = 8;
/// How long all questions of one read may take together.
pub(crate) const READ_WITHIN: Duration = Duration::from_secs(30);
/// How often the system's files are looked at, while names are asked.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The client of one set of resolvers.
#[derive(Debug)]
pub(crate) struct Client {
    settings: Settings,
    tls: Tls,
    paths: Paths,
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
    /// Reads the system's files if no resolver is named, and the file of authorities if one is; blocks while it does.
    ///
    /// # Errors
    /// `InvalidInput` names the setting that is wrong or whose file cannot be read.
    pub(crate) fn new(config: DnsConfig) -> Result<Self> {
        Self::with_paths(config, Paths::default())
    }

    pub(crate) fn with_paths(config: DnsConfig, paths: Paths) -> Result<Self> {
        let tls = Tls::read(&config)?;
        let settings = config.checked()?;
        let stamps = paths.stamps();
        let destination = if settings.resolvers.is_empty() {
            Destination::of_system(paths.read(), &settings, &tls)?
        } else {
            Destination::named(&settings, &tls)?
        };
        Ok(Self {
            settings,
            tls,
            paths,
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
        let (mut asked, mut most) = (name.clone(), u32::MAX);
        for _ in 0..=MOST_ALIASES {
            match self.ask(destination, &asked, wanted).await? {
                Step::Answer(answer) => return Ok(answer.for_at_most(most)),
                Step::Alias { to, ttl } => (asked, most) = (to, most.min(ttl)),
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
        let looked = spawn_blocking(move || {
            let now = paths.stamps();
            (now != stamps).then(|| (now, paths.read()))
        });
        let changed = looked.await.ok().flatten();
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
    use tokio::time::advance;

    use super::*;
    use crate::client::system::tests::{files, write};
    use crate::names;

    async fn resolvers(client: &Client) -> Vec<String> {
        let destination = client.destination().await;
        let resolvers = destination.resolvers().iter();
        resolvers.map(|one| one.address().to_string()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_systems_files_are_read_again_when_they_have_changed() {
        let (paths, _folder) = files("nameserver 10.0.0.1\n", "");
        let client = Client::with_paths(DnsConfig::addresses(80), paths.clone()).unwrap();
        assert_eq!(resolvers(&client).await, ["10.0.0.1:53"]);
        let changed = "nameserver 10.0.0.20\nnameserver ::1\n";
        write(&paths, changed, "10.0.0.7 greeter.prod\n");
        assert_eq!(resolvers(&client).await, ["10.0.0.1:53"]);
        advance(LOOK_EVERY).await;
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
