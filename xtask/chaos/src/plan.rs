//! What a run consists of: its sites, and for a quick one every round.

use std::path::PathBuf;
use std::time::Duration;

use sd_testing::required_env;

use crate::Result;
use crate::backend::Backend;
use crate::history::Election;
use crate::kind::Kind;
use crate::step::Step;

/// What one site has.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) backend: Backend,
    pub(crate) program: PathBuf,
    pub(crate) members: usize,
    /// How long the server lets no candidate lead after a leader's lease has ended. Zero if there is no such thing.
    pub(crate) lock_delay: Duration,
    /// Tells it from others that are alike.
    pub(crate) number: usize,
    /// In a quick run its rounds.
    pub(crate) steps: Option<&'static [Step]>,
}

impl Plan {
    /// What the site is called in the report, with servers of this version.
    pub(crate) fn label(&self, version: &str) -> String {
        match self.backend {
            Backend::Etcd if self.members > 1 => {
                format!("etcd {version}, {} members", self.members)
            }
            Backend::Etcd => format!("etcd {version}"),
            Backend::Zk if self.members > 1 => {
                format!("ZooKeeper {version}, {} members", self.members)
            }
            Backend::Zk => format!("ZooKeeper {version}"),
            // Which of the two it is, is part of the version.
            Backend::Redis if self.members > 1 => format!("{version} with Sentinels"),
            Backend::Redis => version.to_owned(),
            Backend::Consul => {
                let delay = match self.lock_delay {
                    Duration::ZERO => "no lock-delay".to_owned(),
                    delay => format!("lock-delay {delay:?}"),
                };
                format!("Consul {version} no. {}, {delay}", self.number)
            }
        }
    }
}

/// The sites of a run.
///
/// # Errors
/// A server's program is not named.
pub(crate) fn plans(backend: Backend, quick: bool) -> Result<Vec<Plan>> {
    match (backend, quick) {
        (Backend::Etcd, true) => [("SD_TEST_ETCD_BIN", 1), ("SD_TEST_ETCD_BIN", 3)]
            .into_iter()
            .zip(QUICK_ETCD)
            .map(|((program, members), steps)| etcd(program, members, Some(steps)))
            .collect(),
        // Each release alone, and the newest with three members.
        (Backend::Etcd, false) => [
            ("SD_TEST_ETCD_3_4_BIN", 1),
            ("SD_TEST_ETCD_3_6_BIN", 1),
            ("SD_TEST_ETCD_3_6_BIN", 3),
        ]
        .into_iter()
        .map(|(program, members)| etcd(program, members, None))
        .collect(),
        (Backend::Consul, true) => [NO_DELAY, NO_DELAY, DELAY]
            .into_iter()
            .zip(QUICK_CONSUL)
            .zip(1..)
            .map(|((delay, steps), number)| consul(delay, number, Some(steps)))
            .collect(),
        (Backend::Zk, true) => [1, 3]
            .into_iter()
            .zip(QUICK_ZK)
            .map(|(members, steps)| zk("SD_TEST_ZK_BIN", members, Some(steps)))
            .collect(),
        // As for etcd.
        (Backend::Zk, false) => [
            ("SD_TEST_ZOOKEEPER_3_8_BIN", 1),
            ("SD_TEST_ZOOKEEPER_3_9_BIN", 1),
            ("SD_TEST_ZOOKEEPER_3_9_BIN", 3),
        ]
        .into_iter()
        .map(|(program, members)| zk(program, members, None))
        .collect(),
        (Backend::Redis, true) => [1, SENTINELS_AND_DATA]
            .into_iter()
            .zip(QUICK_REDIS)
            .map(|(members, steps)| redis("SD_TEST_REDIS_BIN", members, Some(steps)))
            .collect(),
        // Each release alone and with Sentinels.
        (Backend::Redis, false) => ["SD_TEST_REDIS_7_0_BIN", "SD_TEST_VALKEY_9_1_BIN"]
            .into_iter()
            .flat_map(|program| [1, SENTINELS_AND_DATA].map(|members| (program, members)))
            .map(|(program, members)| redis(program, members, None))
            .collect(),
        // A round takes half a minute and more, so there are many. With a lock-delay Consul keeps the next leader waiting for longer
        // than any term is believed in; without, our candidates have to know by themselves when to stop.
        (Backend::Consul, false) => [NO_DELAY, NO_DELAY, NO_DELAY, DELAY, DELAY, DELAY]
            .into_iter()
            .zip(1..)
            .map(|(delay, number)| consul(delay, number, None))
            .collect(),
    }
}

/// The sites of a run of discovery: in a quick one the newest release alone.
///
/// # Errors
/// A server's program is not named.
pub(crate) fn discovery_plans(backend: Backend, quick: bool) -> Result<Vec<Plan>> {
    match (backend, quick) {
        (Backend::Etcd, true) => Ok(vec![etcd("SD_TEST_ETCD_BIN", 1, None)?]),
        (Backend::Etcd | Backend::Zk | Backend::Redis, false) => plans(backend, false),
        (Backend::Redis, true) => Ok(vec![redis("SD_TEST_REDIS_BIN", 1, None)?]),
        (Backend::Zk, true) => Ok(vec![zk("SD_TEST_ZK_BIN", 1, None)?]),
        (Backend::Consul, true) => Ok(vec![consul(NO_DELAY, 1, None)?]),
        (Backend::Consul, false) => (1..=3)
            .map(|number| consul(NO_DELAY, number, None))
            .collect(),
    }
}

fn etcd(program: &str, members: usize, steps: Option<&'static [Step]>) -> Result<Plan> {
    members_of(Backend::Etcd, program, members, steps)
}

fn zk(program: &str, members: usize, steps: Option<&'static [Step]>) -> Result<Plan> {
    members_of(Backend::Zk, program, members, steps)
}

fn redis(program: &str, members: usize, steps: Option<&'static [Step]>) -> Result<Plan> {
    members_of(Backend::Redis, program, members, steps)
}

fn members_of(
    backend: Backend,
    program: &str,
    members: usize,
    steps: Option<&'static [Step]>,
) -> Result<Plan> {
    Ok(Plan {
        backend,
        program: required_env(program)?.into(),
        members,
        lock_delay: Duration::ZERO,
        number: 1,
        steps,
    })
}

/// A primary, its replica and three Sentinels.
const SENTINELS_AND_DATA: usize = 5;

const NO_DELAY: Duration = Duration::ZERO;
const DELAY: Duration = sd_consul::DEFAULT_LOCK_DELAY;

fn consul(lock_delay: Duration, number: usize, steps: Option<&'static [Step]>) -> Result<Plan> {
    Ok(Plan {
        backend: Backend::Consul,
        program: required_env("SD_TEST_CONSUL_BIN")?.into(),
        members: 1,
        lock_delay,
        number,
        steps,
    })
}

// Quick runs show that everything works together. Nothing of what they play is left to chance but how long it lasts.

const QUICK_ETCD: [&[Step]; 2] = [
    &[
        Step::at(Kind::FreezeAboveTtl, Election::Plain),
        Step::at(Kind::KillCandidate, Election::Delayed),
        Step::of(Kind::DeleteEntry),
        Step::at(Kind::HalfOpen, Election::Plain),
        Step::of(Kind::KillServer),
    ],
    &[
        Step::at(Kind::FreezeAboveTtl, Election::Naive),
        Step::of(Kind::RevokeLease),
        Step::of(Kind::CutOffClusterLeader),
        Step::at(Kind::BlackHole, Election::Plain),
        Step::of(Kind::Compact),
    ],
];

const QUICK_CONSUL: [&[Step]; 3] = [
    &[Step::at(Kind::FreezeAboveTtl, Election::Plain)],
    &[
        Step::of(Kind::DeleteEntry),
        Step::at(Kind::KillCandidate, Election::Plain),
    ],
    &[Step::of(Kind::RevokeLease), Step::of(Kind::KillServer)],
];

const QUICK_ZK: [&[Step]; 2] = [
    &[
        Step::at(Kind::FreezeAboveTtl, Election::Naive),
        Step::of(Kind::RevokeLease),
        Step::of(Kind::KillServer),
    ],
    &[
        Step::at(Kind::KillCandidate, Election::Plain),
        Step::of(Kind::DeleteEntry),
        Step::of(Kind::KillClusterLeader),
    ],
];

const QUICK_REDIS: [&[Step]; 2] = [
    &[
        Step::at(Kind::FreezeAboveTtl, Election::Naive),
        Step::of(Kind::DeleteEntry),
        Step::at(Kind::BlackHole, Election::Plain),
        Step::of(Kind::KillServer),
    ],
    &[
        Step::at(Kind::FreezeAboveTtl, Election::Plain),
        Step::of(Kind::RevokeLease),
        Step::of(Kind::KillClusterLeader),
    ],
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quick_run_plays_only_what_its_sites_can_and_freezes_a_candidate_for_longer_than_a_term() {
        let with_members = |backend, sites: [&'static [Step]; 2]| {
            let sites = sites.into_iter().zip([1, SENTINELS_AND_DATA]);
            sites.map(move |(steps, members)| (backend, members, steps))
        };
        let etcd = with_members(Backend::Etcd, QUICK_ETCD);
        let zk = with_members(Backend::Zk, QUICK_ZK);
        let redis = with_members(Backend::Redis, QUICK_REDIS);
        let consul = QUICK_CONSUL.map(|steps| (Backend::Consul, 1, steps));
        for (backend, members, steps) in etcd.chain(zk).chain(redis).chain(consul) {
            let possible = Kind::of_site(backend, members);
            assert!(steps.iter().all(|step| possible.contains(&step.kind)));
        }
        for sites in [
            &QUICK_ETCD[..],
            &QUICK_CONSUL[..],
            &QUICK_ZK[..],
            &QUICK_REDIS[..],
        ] {
            let mut steps = sites.iter().copied().flatten();
            assert!(steps.any(|step| step.kind == Kind::FreezeAboveTtl));
        }
    }
}
