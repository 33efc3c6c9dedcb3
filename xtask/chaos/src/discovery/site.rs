//! One server or cluster with the processes that register and read, and everything between them.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fastrand::Rng;
use sd_core::Registry;
use sd_core::retry::Retry;
use tokio::time::{sleep, timeout};

use crate::Result;
use crate::child::{Order, SERVICE, connect};
use crate::discovery::check::SOON;
use crate::history::Event;
use crate::kind::Kind;
use crate::link::Break;
use crate::plan::Plan;
use crate::process::{Process, Role};
use crate::pulse::Pulse;
use crate::round::{duration, hit_member};
use crate::scene::{Chronicle, RUN, Scene};
use crate::seat::{Seat, Starter};
use crate::servers::Servers;

const SERVICES: usize = 5;
const READERS: usize = 2;
/// Where the first service says that it listens; nothing connects there.
const FIRST_PORT: u16 = 20_000;
/// From when a service is told to leave to when it has.
const LEFT_WITHIN: Duration = Duration::from_secs(15);

/// How long removing the record of a service may take before the run counts as broken: a server that has just been thawed or
/// restarted may answer late, and the record may have to come back first.
const REMOVED_WITHIN: Duration = Duration::from_secs(30);
/// How often to look for it.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A running site. Dropping it kills everything.
pub(super) struct Site {
    /// For the report: `etcd 3.6.16, 3 members`.
    pub(super) label: String,
    plan: Plan,
    servers: Servers,
    /// The services, then the readers.
    seats: Vec<Seat>,
    chronicle: Chronicle,
    /// Past all proxies.
    operator: Registry,
    _pulse: Pulse,
    /// Where the processes log.
    folder: PathBuf,
}

impl Site {
    pub(super) async fn open(plan: &Plan, folder: &Path, rng: &mut Rng) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let servers = Servers::launch(plan).await?;
        let addresses = servers.addresses();
        let version = servers.operator().await?.version().await?;
        let endpoints = addresses
            .iter()
            .map(|address| plan.backend.endpoint(*address));
        let operator = connect(plan.backend, endpoints.collect(), plan.lock_delay)?;
        let chronicle = Chronicle::begin();
        let starter = Starter {
            plan,
            register: None,
            chronicle: &chronicle,
            folder,
        };
        let mut seats = Vec::new();
        for (seat, port) in (1..=SERVICES).zip(FIRST_PORT..) {
            let named = (format!("s{seat}"), Role::Service);
            let address = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
            seats.push(Seat::open(&starter, named, &addresses, address, rng.u64(..)).await?);
        }
        for seat in 1..=READERS {
            let named = (format!("r{seat}"), Role::Reader);
            seats.push(Seat::open(&starter, named, &addresses, None, rng.u64(..)).await?);
        }
        chronicle.tell(RUN, Event::Begun);
        // So that the first fault meets what is registered.
        sleep(SOON).await;
        Ok(Self {
            label: plan.label(&version),
            plan: plan.clone(),
            servers,
            seats,
            operator,
            _pulse: Pulse::start(chronicle.clone()),
            chronicle,
            folder: folder.to_owned(),
        })
    }

    /// A fault, its end, and a while in which readers have to see what there is. Now and then a service leaves and comes back.
    ///
    /// # Errors
    /// The run itself is broken, for instance because a fault did not take effect.
    pub(super) async fn play(&mut self, round: u32, kind: Kind, rng: &mut Rng) -> Result<()> {
        let lasts = duration(kind, self.plan.backend, rng);
        let member = match kind {
            Kind::RestartServer | Kind::KillServer | Kind::FreezeServer => {
                Some(rng.usize(..self.servers.len()))
            }
            Kind::KillClusterLeader | Kind::FreezeClusterLeader | Kind::CutOffClusterLeader => {
                Some(self.servers.cluster_leader().await?)
            }
            _ => None,
        };
        let seat = match kind {
            Kind::RevokeLease | Kind::DeleteEntry => rng.usize(..SERVICES),
            Kind::Compact => rng.usize(SERVICES..self.seats.len()),
            _ => rng.usize(..self.seats.len()),
        };
        let target = match member {
            Some(member) => self.servers.name(member),
            None => self.seats[seat].name.clone(),
        };
        eprintln!("{}: round {round}: {kind}, {target}, {lasts:?}", self.label);
        let fault = Event::Fault {
            round,
            kind,
            target,
            leads_cluster: false,
        };
        self.chronicle.tell(RUN, fault);
        match member {
            Some(member) => hit_member(&mut self.servers, member, kind, lasts).await?,
            None => self.hit_seat(seat, kind, lasts, rng).await?,
        }
        self.chronicle.tell(RUN, Event::Healed { round });
        self.rest(rng).await;
        if rng.bool() {
            self.roll(rng).await?;
            self.rest(rng).await;
        }
        self.seats
            .iter_mut()
            .try_for_each(|seat| seat.process.check_runs())
    }

    /// Long enough for a promise to be broken, now and then for what is dead to have to be gone.
    async fn rest(&self, rng: &mut Rng) {
        let short = 2 * SOON + Duration::from_millis(rng.u64(..1_000));
        let long = short + self.plan.backend.record_gone_within();
        sleep(if rng.u8(..3) == 0 { long } else { short }).await;
    }

    async fn hit_seat(
        &mut self,
        index: usize,
        kind: Kind,
        lasts: Duration,
        rng: &mut Rng,
    ) -> Result<()> {
        let starter = Starter {
            plan: &self.plan,
            register: None,
            chronicle: &self.chronicle,
            folder: &self.folder,
        };
        let seat = &mut self.seats[index];
        let how = match kind {
            Kind::KillCandidate => return seat.replace(&starter, rng.u64(..)).await,
            Kind::FreezeBelowTtl | Kind::FreezeAroundTtl | Kind::FreezeAboveTtl => {
                seat.freeze(&self.chronicle)?;
                sleep(lasts).await;
                return seat.thaw(&self.chronicle);
            }
            Kind::RevokeLease | Kind::DeleteEntry => {
                self.remove_record(index).await?;
                // Until then nothing is owed: no reader can see what its owner does not know to be lost.
                sleep(noticed_within(self.plan.backend.ttl())).await;
                return Ok(());
            }
            Kind::Compact => {
                seat.break_links(Break::Cut).await?;
                self.servers.etcd_operator().await?.compact().await?;
                sleep(lasts).await;
                return self.seats[index].heal_links().await;
            }
            kind => Break::of(kind, rng),
        };
        seat.break_links(how).await?;
        sleep(lasts).await;
        seat.heal_links().await
    }

    /// As an operator who is mistaken, and who tries again if the server does not answer.
    async fn remove_record(&self, index: usize) -> Result<()> {
        let process = self.seats[index].process.name();
        let removed = async {
            loop {
                match self.try_to_remove_record_of(process).await {
                    Ok(true) => return Ok(()),
                    Err(error) if error.kind().retry() == Retry::Never => return Err(error),
                    Ok(false) | Err(_) => sleep(LOOK_EVERY).await,
                }
            }
        };
        let removed = timeout(REMOVED_WITHIN, removed).await;
        removed.map_err(|_| format!("no record of {process} could be removed"))??;
        Ok(())
    }

    /// False if the record of the process is not listed.
    async fn try_to_remove_record_of(&self, process: &str) -> sd_core::Result<bool> {
        // By its id: that of an earlier process at the same address may still be there.
        let id = self.chronicle.scene().registered.get(process).cloned();
        let set = self.operator.list(SERVICE).await?;
        let mut instances = set.instances().iter();
        let Some(found) = instances.find(|one| Some(one.id().as_str()) == id.as_deref()) else {
            return Ok(false);
        };
        self.operator.remove_record(&found.record_id()).await?;
        Ok(true)
    }

    /// One service leaves, and another process takes its place.
    async fn roll(&mut self, rng: &mut Rng) -> Result<()> {
        let starter = Starter {
            plan: &self.plan,
            register: None,
            chronicle: &self.chronicle,
            folder: &self.folder,
        };
        let seat = &mut self.seats[rng.usize(..SERVICES)];
        seat.process.order(Order::Leave).await?;
        wait_for_idle(&self.chronicle, &[seat.process.name().to_owned()]).await?;
        seat.restart(&starter, rng.u64(..))?.finish().await
    }

    /// Lets all services leave.
    pub(super) async fn end(&mut self) -> Result<()> {
        let services = &mut self.seats[..SERVICES];
        let mut names = Vec::new();
        for seat in services {
            seat.process.order(Order::Leave).await?;
            names.push(seat.process.name().to_owned());
        }
        wait_for_idle(&self.chronicle, &names).await?;
        sleep(2 * SOON).await;
        self.chronicle.tell(RUN, Event::Ending);
        Ok(())
    }

    pub(super) async fn close(self) -> Result<(Chronicle, Servers)> {
        let processes = self.seats.into_iter().map(|seat| seat.process);
        for process in processes {
            Process::finish(process).await?;
        }
        self.operator.close().await?;
        Ok((self.chronicle, self.servers))
    }
}

/// From when a record is removed to when its owner registers it again: it learns that at its next renewal, up to a tenth later than
/// every third of the time-to-live, and then waits for up to a second, so that not all return at once. The same on Consul: the operator
/// removes it from the agent, which the owner renews it at, and not only from the catalog.
fn noticed_within(ttl: Duration) -> Duration {
    ttl * 11 / 30 + Duration::from_secs(1)
}

async fn wait_for_idle(chronicle: &Chronicle, names: &[String]) -> Result<()> {
    let all_idle = |scene: &Scene| names.iter().all(|name| scene.idle.contains(name));
    if chronicle.wait_until(LEFT_WITHIN, all_idle).await {
        return Ok(());
    }
    Err(format!("not all of {} left in time", names.join(", ")).into())
}
