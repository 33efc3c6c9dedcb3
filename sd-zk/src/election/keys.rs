//! Where an election is kept, and in what order its candidates lead. Pure functions.
//!
//! Candidates are the children of `<prefix>/<name>`, as those of Curator's `LeaderLatch` are: `_c_<uuid>-latch-<sequence>`. Curator takes
//! each child of that node for a candidate. So what else is kept lies elsewhere below the prefix, in nodes whose names begin with a dot,
//! as no election's does. A slash in a name is written `%2F`, so that no election is a child of another.
//!
//! With the format of reception, candidates are called as [`reception`](crate::election::reception) says.

use sd_core::ElectionName;
use sd_core::port::CandidateId;

use crate::config::ZkConfig;
use crate::config::election_format::ElectionFormat;
use crate::election::reception;

/// What Curator puts between a name and its sequence number, and orders names by.
const BEFORE_SEQUENCE: &str = "latch-";
/// How the names of our nodes begin: as Curator's protected names, whose random part has a `4` where ours has the `8` of a format of one's
/// own.
const MARK: &str = "_c_73642d7a-";

/// The nodes of one election.
#[derive(Clone, Debug)]
pub(crate) struct ElectionKeys {
    format: ElectionFormat,
    prefix: String,
    candidates: String,
    term: String,
}

/// Where a candidate stands among the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    First,
    Behind(Ahead),
    /// Its node is not there.
    Missing,
}

/// What is before a candidate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ahead {
    /// The name of the node directly before its own.
    pub(crate) next: String,
    /// Whether that one is the first.
    pub(crate) is_first: bool,
}

impl ElectionKeys {
    /// Of the election `name`, where and as the [checked](ZkConfig::checked) configuration has it.
    pub(crate) fn new(config: &ZkConfig, name: &ElectionName) -> Self {
        let name = name.as_str().replace('/', "%2F");
        let prefix = config.election_prefix.as_str();
        Self {
            format: config.election_format,
            candidates: format!("{prefix}/{name}"),
            term: format!("{prefix}/.terms/{name}"),
            prefix: prefix.to_owned(),
        }
    }

    /// The parent of all candidates.
    pub(crate) fn candidates(&self) -> &str {
        &self.candidates
    }

    /// The node of a candidate.
    pub(crate) fn candidate(&self, node: &str) -> String {
        format!("{}/{node}", self.candidates)
    }

    /// The record of the last term.
    pub(crate) fn term(&self) -> &str {
        &self.term
    }

    /// What the candidate with this node has proclaimed. It cannot be put into that node: a change there strands the candidate of Curator's
    /// that waits behind it, which would not watch it again.
    pub(crate) fn value(&self, node: &str) -> String {
        format!("{}/.values/{node}", self.prefix)
    }

    /// The name of the history that tokens are of.
    pub(crate) fn history(&self) -> String {
        history(&self.prefix)
    }
}

/// The name of the history that the tokens of all elections below a prefix are of.
pub(crate) fn history(prefix: &str) -> String {
    format!("{prefix}/.history")
}

impl ElectionKeys {
    /// What the name of a candidate's node begins with. ZooKeeper appends the sequence number. The nonce tells participations with one id
    /// apart.
    pub(crate) fn node_prefix(&self, id: CandidateId, nonce: u32) -> String {
        match self.format {
            ElectionFormat::Curator => node_prefix(id, nonce),
            ElectionFormat::Reception => reception::node_prefix(id, nonce),
        }
    }

    /// Whose node this is. `None` if another program made it.
    pub(crate) fn id_of(&self, node: &str) -> Option<CandidateId> {
        match self.format {
            ElectionFormat::Curator => id_of(node),
            ElectionFormat::Reception => reception::id_of(node),
        }
    }

    /// What the node of a candidate with this value holds.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn data(&self, value: &[u8]) -> serde_json::Result<Vec<u8>> {
        match self.format {
            ElectionFormat::Curator => Ok(value.to_vec()),
            ElectionFormat::Reception => reception::data(value),
        }
    }

    /// The value of the candidate whose node holds this.
    pub(crate) fn value_in(&self, data: Vec<u8>) -> Vec<u8> {
        match self.format {
            ElectionFormat::Curator => data,
            ElectionFormat::Reception => reception::value(data),
        }
    }

    /// A node that a candidate of another format has made. The formats order nodes in different ways, so that each would have its leader.
    pub(crate) fn of_another_format<'a>(&self, nodes: &'a [String]) -> Option<&'a String> {
        let is_other = |node: &&String| match self.format {
            ElectionFormat::Curator => reception::is_candidate(node),
            ElectionFormat::Reception => !reception::is_candidate(node),
        };
        nodes.iter().find(is_other)
    }

    /// Where the node `own` stands among these.
    pub(crate) fn place(&self, nodes: &[String], own: &str) -> Place {
        if !nodes.iter().any(|node| node == own) {
            return Place::Missing;
        }
        let ahead = || nodes.iter().filter(|node| self.is_before(node, own));
        match ahead().max_by_key(|node| self.order(node)) {
            None => Place::First,
            Some(next) => Place::Behind(Ahead {
                next: next.clone(),
                is_first: ahead().count() == 1,
            }),
        }
    }

    /// Which of these leads.
    pub(crate) fn first<'a>(&self, nodes: &'a [String]) -> Option<&'a String> {
        nodes.iter().min_by_key(|node| self.order(node))
    }

    /// Whether a node is before another one.
    pub(crate) fn is_before(&self, node: &str, other: &str) -> bool {
        self.order(node) < self.order(other)
    }

    /// What candidates are ordered by, the lowest first. The name decides where that is the same.
    fn order<'a>(&self, node: &'a str) -> (&'a str, &'a str) {
        let order = match self.format {
            ElectionFormat::Curator => sequence(node),
            ElectionFormat::Reception => reception::sequence(node),
        };
        (order, node)
    }
}

fn node_prefix(id: CandidateId, nonce: u32) -> String {
    let id = id.to_string();
    let (four, twelve) = id.split_at(4);
    let (high, low) = ((nonce >> 12) & 0xffff, nonce & 0xfff);
    format!("{MARK}{high:04x}-8{low:03x}-{four}-{twelve}-{BEFORE_SEQUENCE}")
}

fn id_of(node: &str) -> Option<CandidateId> {
    let uuid = node.strip_prefix(MARK)?;
    let mut parts = uuid.split('-');
    let [_, version, four, twelve, latch] =
        std::array::from_fn(|_| parts.next().unwrap_or_default());
    let is_ours = version.starts_with('8')
        && (four.len(), twelve.len()) == (4, 12)
        && latch == BEFORE_SEQUENCE.trim_end_matches('-');
    is_ours.then(|| format!("{four}{twelve}").parse().ok())?
}

/// As Curator orders the children: by the text after the last `latch-`, or the whole name.
fn sequence(node: &str) -> &str {
    let sequence = node.rfind(BEFORE_SEQUENCE);
    let behind = sequence.and_then(|at| node.get(at + BEFORE_SEQUENCE.len()..));
    behind.unwrap_or(node)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(name: &str) -> ElectionKeys {
        ElectionKeys::new(&ZkConfig::new(["h"]), &ElectionName::new(name).unwrap())
    }

    fn receptions(name: &str) -> ElectionKeys {
        let format = ElectionFormat::Reception;
        ElectionKeys {
            format,
            ..keys(name)
        }
    }

    fn nodes(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    const CURATORS: &str = "_c_8d1a1ee0-8e4c-4c4f-9d37-1f6e1d2b9a11-latch-0000000002";

    #[test]
    fn a_candidate_is_found_again_by_the_name_of_its_node() {
        for id in [1, 0xab, i64::MAX.cast_unsigned(), 0x0123_4567_89ab_cdef] {
            let id = CandidateId::from_u64(id).unwrap();
            for nonce in [0, 0x0fff_ffff, 0x0123_4567] {
                let node = node_prefix(id, nonce) + "0000000007";
                assert_eq!(id_of(&node), Some(id), "{node}");
                // As long as Curator's, which cuts its own out at fixed places.
                assert_eq!(node.len(), CURATORS.len(), "{node}");
            }
        }
        let id = CandidateId::from_u64(0xab).unwrap();
        let node = node_prefix(id, 0x0123_4567);
        assert_eq!(node, "_c_73642d7a-1234-8567-0000-0000000000ab-latch-");
    }

    #[test]
    fn the_node_of_another_program_is_no_candidate_of_ours() {
        for node in [
            CURATORS,
            "",
            "host-7",
            "_c_73642d7a-1234-4567-0000-0000000000ab-latch-0000000001",
            "_c_73642d7a-1234-8567-0000-0000000000ab-lock-0000000001",
            "_c_73642d7a-1234-8567-0000-0000000000-latch-0000000001",
            "_c_73642d7a-1234-8567-0000-0000000000ag-latch-0000000001",
            "_c_73642d7a-1234-8567-00é-0000000000ab-latch-0000000001",
        ] {
            assert_eq!(id_of(node), None, "{node}");
        }
    }

    #[test]
    fn candidates_lead_in_the_order_of_their_sequence_whatever_they_are_called() {
        let [first_one, middle, last] = [
            "_c_ffffffff-0000-4000-8000-000000000000-latch-0000000001",
            CURATORS,
            "_c_00000000-0000-4000-8000-000000000000-latch-0000000010",
        ];
        let all = nodes(&[last, first_one, middle]);
        let keys = keys("a");
        assert_eq!(keys.place(&all, first_one), Place::First);
        let ahead = |next: &str, is_first| {
            Place::Behind(Ahead {
                next: next.to_owned(),
                is_first,
            })
        };
        assert_eq!(keys.place(&all, middle), ahead(first_one, true));
        assert_eq!(keys.place(&all, last), ahead(middle, false));
        assert_eq!(keys.first(&all).map(String::as_str), Some(first_one));
        assert_eq!(keys.place(&all[..1], middle), Place::Missing);
        assert_eq!(keys.place(&[], middle), Place::Missing);
        assert_eq!(keys.first(&[]), None);
    }

    /// Curator takes them for candidates as well.
    #[test]
    fn what_is_no_candidate_has_a_place_in_the_order_all_the_same() {
        let all = nodes(&["0", CURATORS, "zzz"]);
        let keys = keys("a");
        assert_eq!(keys.first(&all).map(String::as_str), Some("0"));
        assert!(matches!(keys.place(&all, CURATORS), Place::Behind(ahead) if ahead.next == "0"));
        let twin = nodes(&["a-latch-0000000002", CURATORS]);
        // One of two with the same number is first, and the other one is not.
        let places = [&twin[0], &twin[1]].map(|node| keys.place(&twin, node) == Place::First);
        assert_eq!(places.iter().filter(|is_first| **is_first).count(), 1);
    }

    #[test]
    fn candidates_of_reception_lead_in_the_order_of_their_sequence() {
        let keys = receptions("a");
        let id = CandidateId::random();
        let own = keys.node_prefix(id, 7) + "0000000002";
        let all = nodes(&[
            "_c_00000000000000000000000000000000-a-0000000010",
            &own,
            "_c_ffffffffffffffffffffffffffffffff-a-0000000001",
        ]);
        assert_eq!(keys.first(&all), Some(&all[2]));
        assert!(matches!(keys.place(&all, &own), Place::Behind(ahead) if ahead.next == all[2]));
        assert_eq!(keys.place(&all[..2], &own), Place::First);
        assert_eq!(keys.id_of(&own), Some(id));
    }

    #[test]
    fn a_candidate_of_another_format_is_noticed() {
        let (curators, receptions) = (keys("a"), receptions("a"));
        let id = CandidateId::random();
        let [curators_node, receptions_node] =
            [&curators, &receptions].map(|keys| keys.node_prefix(id, 1) + "0000000001");
        let all = [curators_node, receptions_node];
        assert_eq!(curators.of_another_format(&all), Some(&all[1]));
        assert_eq!(receptions.of_another_format(&all), Some(&all[0]));
        assert_eq!(curators.of_another_format(&all[..1]), None);
        assert_eq!(receptions.of_another_format(&all[1..]), None);
        // Curator takes it for a candidate.
        assert_eq!(curators.of_another_format(&nodes(&["host-7"])), None);
    }

    #[test]
    fn no_election_is_kept_within_another_or_beside_its_candidates() {
        let node = node_prefix(CandidateId::random(), 1);
        let names = ["a", "a/b", "a-b", "a.b", "b"];
        for name in names {
            let parent = format!("{}/", keys(name).candidates());
            for other in names {
                let other_keys = keys(other);
                let candidate = other_keys.candidate(&node);
                assert_eq!(candidate.starts_with(&parent), name == other);
                for beside in [
                    other_keys.term().to_owned(),
                    other_keys.value(&node),
                    other_keys.history(),
                ] {
                    assert!(!beside.starts_with(&parent), "{beside}");
                }
            }
        }
        assert_eq!(keys("a/b").candidates(), "/elections/a%2Fb");
        assert_eq!(keys("a/b").term(), "/elections/.terms/a%2Fb");
    }
}
