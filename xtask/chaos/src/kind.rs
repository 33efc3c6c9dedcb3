//! The kinds of fault.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::backend::Backend;

/// What a round does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// kill -9 of a candidate's process, which is then started again.
    KillCandidate,
    /// SIGSTOP of a candidate's process, SIGCONT well before its time-to-live is over.
    FreezeBelowTtl,
    /// SIGCONT when the time-to-live may be over or not.
    FreezeAroundTtl,
    /// SIGCONT after two or three times-to-live.
    FreezeAboveTtl,
    /// A candidate's connections are reset and new ones refused.
    Cut,
    /// What is sent is lost, both ways; neither end is told.
    BlackHole,
    /// Only requests, or only answers, are held back.
    OneWay,
    /// Existing connections are dead without a sign, new ones work.
    HalfOpen,
    /// Every request of a candidate is answered with an error of the server.
    Errors,
    /// A server gets SIGTERM and is started again with its data.
    RestartServer,
    /// A server is killed and started again with its data.
    KillServer,
    /// SIGSTOP of a server, SIGCONT before or after the time-to-live.
    FreezeServer,
    /// The leader's lease or session is ended by an operator.
    RevokeLease,
    /// The leader's entry is deleted by an operator; its lease or session lives on.
    DeleteEntry,
    /// History is compacted while the observers and a candidate are disconnected.
    Compact,
    /// The member that leads a cluster of several is killed.
    KillClusterLeader,
    /// It is frozen.
    FreezeClusterLeader,
    /// It cannot reach the other members nor be reached by them, but its clients still can.
    CutOffClusterLeader,
}

impl Kind {
    const ALL: [Self; 18] = [
        Self::KillCandidate,
        Self::FreezeBelowTtl,
        Self::FreezeAroundTtl,
        Self::FreezeAboveTtl,
        Self::Cut,
        Self::BlackHole,
        Self::OneWay,
        Self::HalfOpen,
        Self::Errors,
        Self::RestartServer,
        Self::KillServer,
        Self::FreezeServer,
        Self::RevokeLease,
        Self::DeleteEntry,
        Self::Compact,
        Self::KillClusterLeader,
        Self::FreezeClusterLeader,
        Self::CutOffClusterLeader,
    ];

    /// Those that a run over these servers has.
    pub(crate) fn of_backend(backend: Backend) -> Vec<Self> {
        let at_sites = [1, usize::MAX].map(|members| Self::of_site(backend, members));
        let is_played = |kind: &Self| at_sites.iter().any(|kinds| kinds.contains(kind));
        Self::ALL.into_iter().filter(is_played).collect()
    }

    /// Those that a site with this many servers can have.
    pub(crate) fn of_site(backend: Backend, members: usize) -> Vec<Self> {
        let is_of_backend = |kind: &Self| match backend {
            Backend::Etcd => *kind != Self::Errors,
            Backend::Consul => *kind != Self::Compact && !kind.is_of_cluster(),
            // Each of its members tells the others where all are, so that no proxy of ours comes in between.
            Backend::Zk => !matches!(
                kind,
                Self::Errors | Self::Compact | Self::CutOffClusterLeader
            ),
            // Sentinels tell clients where the primary is, so that no proxy of ours comes in between.
            Backend::Redis => {
                let is_known = !matches!(
                    kind,
                    Self::Errors | Self::Compact | Self::CutOffClusterLeader
                );
                is_known && (members == 1 || !kind.breaks_links())
            }
        };
        let is_possible =
            |kind: &Self| is_of_backend(kind) && (members > 1 || !kind.is_of_cluster());
        Self::ALL.into_iter().filter(is_possible).collect()
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::KillCandidate => "candidate killed",
            Self::FreezeBelowTtl => "candidate frozen, below the TTL",
            Self::FreezeAroundTtl => "candidate frozen, around the TTL",
            Self::FreezeAboveTtl => "candidate frozen, far above the TTL",
            Self::Cut => "candidate cut off, connections reset",
            Self::BlackHole => "candidate cut off, everything swallowed",
            Self::OneWay => "candidate cut off one way",
            Self::HalfOpen => "connections half-open",
            Self::Errors => "candidate answered with errors",
            Self::RestartServer => "server restarted",
            Self::KillServer => "server killed and restarted",
            Self::FreezeServer => "server frozen",
            Self::RevokeLease => "leader's lease or session ended",
            Self::DeleteEntry => "leader's entry deleted",
            Self::Compact => "compaction while observing",
            Self::KillClusterLeader => "cluster's leader killed and restarted",
            Self::FreezeClusterLeader => "cluster's leader frozen",
            Self::CutOffClusterLeader => "cluster's leader cut off from its peers",
        }
    }

    /// Whether it needs more than one member.
    fn is_of_cluster(self) -> bool {
        matches!(
            self,
            Self::KillClusterLeader | Self::FreezeClusterLeader | Self::CutOffClusterLeader
        )
    }

    /// Whether it is done to the connections of a candidate.
    fn breaks_links(self) -> bool {
        matches!(
            self,
            Self::Cut | Self::BlackHole | Self::OneWay | Self::HalfOpen | Self::Errors
        )
    }

    /// Whether an operator ends what a candidate has at the server.
    pub(crate) fn is_of_operator(self) -> bool {
        matches!(self, Self::RevokeLease | Self::DeleteEntry)
    }

    /// Whether a server is stopped and goes on as if nothing had been: what servers with the bugs that `Safety` warns of do not
    /// survive without harm.
    pub(crate) fn freezes_a_server(self) -> bool {
        matches!(self, Self::FreezeServer | Self::FreezeClusterLeader)
    }

    /// Whether candidates without a fault of their own may be without a working server meanwhile.
    pub(crate) fn impairs_servers(self) -> bool {
        self.is_of_cluster()
            || matches!(
                self,
                Self::RestartServer | Self::KillServer | Self::FreezeServer
            )
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
