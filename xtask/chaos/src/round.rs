//! One round: a fault is made, lasts, and is healed; then every election has to have a leader again.

use std::time::Duration;

use fastrand::Rng;
use tokio::time::{Instant, sleep};

use crate::Result;
use crate::backend::Backend;
use crate::history::{Election, Event};
use crate::kind::Kind;
use crate::link::Break;
use crate::plan::Plan;
use crate::servers::Servers;
use crate::site::Site;
use crate::step::Step;

/// How long an election may be empty before a round is given up.
const LEADER_WITHIN: Duration = Duration::from_secs(30);
const NAIVE_WITHIN: Duration = Duration::from_secs(1);

/// How long a fault of this kind lasts, most of them in hundredths of the time-to-live.
pub(crate) fn duration(kind: Kind, backend: Backend, rng: &mut Rng) -> Duration {
    let hundredths = match kind {
        Kind::FreezeBelowTtl => 20..70,
        // Around when belief has to end, or when the server ends what was not renewed.
        Kind::FreezeAroundTtl => {
            let expiry = 100 * rng.u32(1..=backend.ttls_until_expiry());
            expiry - 15..expiry + 15
        }
        Kind::FreezeAboveTtl => 210..300,
        Kind::RestartServer | Kind::KillServer => 0..120,
        Kind::Compact => 10..40,
        Kind::KillCandidate | Kind::RevokeLease | Kind::DeleteEntry => 0..1,
        Kind::KillClusterLeader => 20..150,
        _ => 40..250,
    };
    backend.ttl() * rng.u32(hundredths) / 100
}

/// Before the next round. Now and then so long that hand-overs can be measured which nothing has disturbed.
fn pause(rng: &mut Rng) -> Duration {
    Duration::from_millis(match rng.u8(..4) {
        0 => rng.u64(5_000..8_000),
        _ => rng.u64(300..2_500),
    })
}

/// Plays one round. All that is random follows from `seed` and from who leads.
///
/// # Errors
/// The run itself is broken, for instance because a fault did not take effect.
pub(crate) async fn play(site: &mut Site, number: u32, step: Step, seed: u64) -> Result<()> {
    let mut rng = Rng::with_seed(seed);
    let kind = step.kind;
    let lasts = duration(kind, site.plan.backend, &mut rng);
    let aim = Aim::take(site, step, &mut rng).await?;
    let target = aim.describe(site);
    let leads_cluster = aim.leads_cluster(site).await?;
    eprintln!(
        "{}: round {number}, seed {seed:016x}: {kind}, {target}, {lasts:?}",
        site.label
    );
    site.tell(Event::Fault {
        round: number,
        kind,
        target,
        leads_cluster,
    });
    aim.hit(site, kind, lasts, &mut rng).await?;
    site.tell(Event::Healed { round: number });
    site.wait_for_leaders().await;
    sleep(pause(&mut rng)).await;
    site.check_processes()
}

/// What a fault is aimed at.
#[derive(Clone, Copy, Debug)]
enum Aim {
    /// The process in this seat.
    Candidate(usize),
    Member(usize),
    /// The leaders of the elections that are exposed to operators, as the server has them.
    Entries,
}

/// In which of our elections an operator ends a term that its leader still believes in. Only who waits long enough can be safe from
/// that, be it because the server has it wait; who deletes an entry takes the server's reason to do so away.
fn exposed(kind: Kind, plan: &Plan) -> Vec<Election> {
    let waits = plan.lock_delay >= plan.backend.ttl() && kind == Kind::RevokeLease;
    let ours = Election::OURS.into_iter();
    ours.filter(|election| *election == Election::Delayed || waits)
        .collect()
}

impl Aim {
    async fn take(site: &Site, step: Step, rng: &mut Rng) -> Result<Self> {
        Ok(match step.kind {
            Kind::RestartServer | Kind::KillServer | Kind::FreezeServer => {
                Self::Member(rng.usize(..site.servers.len()))
            }
            Kind::KillClusterLeader | Kind::FreezeClusterLeader | Kind::CutOffClusterLeader => {
                Self::Member(site.servers.cluster_leader().await?)
            }
            Kind::RevokeLease | Kind::DeleteEntry => Self::Entries,
            _ => {
                let candidate = rng.usize(..site.nodes.len());
                let any = Election::ALL[rng.usize(..Election::ALL.len())];
                let drawn = (rng.u8(..4) > 0).then_some(any);
                let leader = step.leads.or(drawn).and_then(|of| site.leader(of));
                Self::Candidate(leader.unwrap_or(candidate))
            }
        })
    }

    /// Whether it is done to the server that leads its cluster.
    async fn leads_cluster(self, site: &Site) -> Result<bool> {
        Ok(match self {
            Self::Member(_) if site.servers.len() == 1 => true,
            Self::Member(member) => site.servers.cluster_leader().await? == member,
            Self::Candidate(_) | Self::Entries => false,
        })
    }

    fn describe(self, site: &Site) -> String {
        match self {
            Self::Candidate(seat) => {
                let leads: Vec<&str> = Election::ALL
                    .into_iter()
                    .filter(|election| site.leader(*election) == Some(seat))
                    .map(Election::name)
                    .collect();
                let name = site.nodes[seat].process.name();
                if leads.is_empty() {
                    name.to_owned()
                } else {
                    format!("{name} (leads {})", leads.join(", "))
                }
            }
            Self::Member(member) => site.servers.name(member),
            Self::Entries => "the leaders of all that are exposed".to_owned(),
        }
    }

    /// Makes the fault, waits, and heals it.
    async fn hit(self, site: &mut Site, kind: Kind, lasts: Duration, rng: &mut Rng) -> Result<()> {
        match self {
            Self::Candidate(seat) => hit_candidate(site, seat, kind, lasts, rng).await,
            Self::Member(member) => hit_member(&mut site.servers, member, kind, lasts).await,
            Self::Entries => {
                for election in exposed(kind, &site.plan) {
                    if !hit_entry(site, election, kind, LEADER_WITHIN).await? {
                        return Err(format!("no candidate leads {election}").into());
                    }
                }
                // There may be no candidate in line because all of them believe that they lead.
                hit_entry(site, Election::Naive, kind, NAIVE_WITHIN).await?;
                Ok(())
            }
        }
    }
}

/// False if there is no candidate to be hit for so long.
async fn hit_entry(site: &Site, election: Election, kind: Kind, limit: Duration) -> Result<bool> {
    let mut operator = site.servers.operator().await?;
    let give_up_at = Instant::now() + limit;
    while Instant::now() < give_up_at {
        // For a moment there may be no candidate in line, and the leader may leave by itself.
        if let Some(leader) = operator.leader(election).await? {
            let removed = match kind {
                Kind::RevokeLease => operator.end_lease(&leader).await?,
                _ => operator.delete(&leader).await?,
            };
            if removed {
                let token = leader.token;
                site.tell(Event::Removed { election, token });
                return Ok(true);
            }
        }
        sleep(Duration::from_millis(20)).await;
    }
    Ok(false)
}

async fn hit_candidate(
    site: &mut Site,
    seat: usize,
    kind: Kind,
    lasts: Duration,
    rng: &mut Rng,
) -> Result<()> {
    let how = match kind {
        Kind::KillCandidate => return site.replace(seat, rng.u64(..)).await,
        Kind::FreezeBelowTtl | Kind::FreezeAroundTtl | Kind::FreezeAboveTtl => {
            site.freeze(seat)?;
            sleep(lasts).await;
            return site.thaw(seat);
        }
        Kind::Compact => {
            site.observer.break_links(Break::Cut).await?;
            site.nodes[seat].break_links(Break::Cut).await?;
            site.servers.etcd_operator().await?.compact().await?;
            sleep(lasts).await;
            site.observer.heal_links().await?;
            return site.nodes[seat].heal_links().await;
        }
        kind => Break::of(kind, rng),
    };
    site.nodes[seat].break_links(how).await?;
    sleep(lasts).await;
    site.nodes[seat].heal_links().await
}

/// Makes a fault of a server, waits, and heals it.
pub(crate) async fn hit_member(
    servers: &mut Servers,
    member: usize,
    kind: Kind,
    lasts: Duration,
) -> Result<()> {
    match kind {
        Kind::RestartServer => {
            servers.terminate(member).await?;
            sleep(lasts).await;
            servers.start(member).await
        }
        Kind::FreezeServer | Kind::FreezeClusterLeader => {
            servers.freeze(member)?;
            sleep(lasts).await;
            servers.thaw(member)
        }
        Kind::CutOffClusterLeader => {
            servers.cut_off(member).await?;
            sleep(lasts).await;
            servers.heal(member).await
        }
        _ => {
            servers.kill(member)?;
            sleep(lasts).await;
            servers.start(member).await
        }
    }
}
