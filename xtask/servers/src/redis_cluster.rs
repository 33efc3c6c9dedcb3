//! A node of a Redis Cluster, which knows all others when it starts.
//!
//! A node keeps what it knows of the cluster in a file. With that file written before its first start, a cluster is one from the beginning,
//! and a node that has lost its data comes back as itself.

use std::io;

use crate::redis::Redis;
use crate::redis_protocol::texts;

/// Of how many parts the key space has, each belongs to one primary.
const SLOTS: usize = 16_384;
/// How many primaries there are. Each has one replica.
const PRIMARIES: usize = 3;
/// How many keys of a slot are moved at once.
const MOVED_AT_ONCE: &str = "100";

/// What one node of a cluster knows.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    id: String,
    /// All nodes, as the file has them, but for which is its own.
    lines: Vec<(String, String)>,
}

impl Node {
    /// The file of a node that starts for the first time.
    pub(crate) fn file(&self) -> String {
        let own = |id: &str| if id == self.id { "myself," } else { "" };
        let lines = self.lines.iter();
        let lines = lines.map(|(address, rest)| {
            let (id, _) = address.split_once(' ').unwrap_or((address, ""));
            format!("{address} {}{rest}\n", own(id))
        });
        format!(
            "{}vars currentEpoch {PRIMARIES} lastVoteEpoch 0\n",
            lines.collect::<String>()
        )
    }
}

/// What each of these nodes knows, by their ports for clients and for each other: the first ones are primaries, which share the slots, and
/// each of the others is the replica of one.
pub(crate) fn nodes(ports: &[(u16, u16)]) -> Vec<Node> {
    let id = |node: usize| format!("{:040x}", node + 1);
    let share = SLOTS.div_ceil(PRIMARIES);
    let lines = ports.iter().enumerate().map(|(node, (clients, bus))| {
        let epoch = node % PRIMARIES + 1;
        let first = node * share;
        let rest = if node < PRIMARIES {
            let last = (first + share).min(SLOTS) - 1;
            format!("master - 0 0 {epoch} connected {first}-{last}")
        } else {
            format!("slave {} 0 0 {epoch} connected", id(node % PRIMARIES))
        };
        let address = format!("{} 127.0.0.1:{clients}@{bus}", id(node));
        (address, rest)
    });
    let lines: Vec<_> = lines.collect();
    let node = |node| Node {
        id: id(node),
        lines: lines.clone(),
    };
    (0..ports.len()).map(node).collect()
}

impl Redis {
    /// What an operator does who moves a slot of a cluster from this primary to another, with the keys in it. Blocks for some seconds at
    /// most for each step.
    ///
    /// # Errors
    /// One of the two does not answer, is in no cluster, or refuses.
    pub fn move_slot(&self, slot: u16, to: &Self) -> io::Result<()> {
        let (from_id, to_id) = (self.node_id()?, to.node_id()?);
        let (slot, port) = (slot.to_string(), to.operators_address().port().to_string());
        to.ask(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", from_id])?;
        self.ask(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", to_id])?;
        loop {
            let keys = self.ask(&["CLUSTER", "GETKEYSINSLOT", &slot, MOVED_AT_ONCE])?;
            let keys = texts(&keys);
            if keys.is_empty() {
                break;
            }
            let migrate = ["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            self.ask(&[&migrate, keys.as_slice()].concat())?;
        }
        for node in [to, self] {
            node.ask(&["CLUSTER", "SETSLOT", &slot, "NODE", to_id])?;
        }
        Ok(())
    }

    /// The slot of a key, as this node counts it.
    ///
    /// # Errors
    /// It does not answer, or is in no cluster.
    pub fn slot_of(&self, key: &str) -> io::Result<u16> {
        let slot = self.ask(&["CLUSTER", "KEYSLOT", key])?;
        slot.parse().map_err(io::Error::other)
    }

    /// Whether this node knows of another that it is the primary of a slot. What a node that is lost was still to tell is lost with it.
    ///
    /// # Errors
    /// It does not answer, or one of the two is in no cluster.
    pub fn knows_slot_at(&self, slot: u16, primary: &Self) -> io::Result<bool> {
        let (said, id) = (self.ask(&["CLUSTER", "NODES"])?, primary.node_id()?);
        let line = said.lines().find(|line| line.starts_with(id));
        // Before them comes what is said of the node itself.
        let mut ranges = line.unwrap_or_default().split_whitespace().skip(8);
        Ok(ranges.any(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let bound = |number: &str| number.parse::<u16>().ok();
            let range = bound(first).zip(bound(last));
            range.is_some_and(|(first, last)| (first..=last).contains(&slot))
        }))
    }

    fn node_id(&self) -> io::Result<&str> {
        let node = self.node();
        let node = node.ok_or_else(|| io::Error::other(format!("{self:?} is in no cluster")))?;
        Ok(&node.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_node_knows_all_and_which_it_is() {
        let ports = [(1, 11), (2, 12), (3, 13), (4, 14), (5, 15), (6, 16)];
        let files: Vec<String> = nodes(&ports).iter().map(Node::file).collect();
        let first: Vec<&str> = files[0].lines().collect();
        let id = |number: u8| format!("{number:040x}");
        assert_eq!(
            first[0],
            format!(
                "{} 127.0.0.1:1@11 myself,master - 0 0 1 connected 0-5461",
                id(1)
            )
        );
        assert!(first[2].ends_with("master - 0 0 3 connected 10924-16383"));
        let fourth = format!("{} 127.0.0.1:4@14 slave {} 0 0 1 connected", id(4), id(1));
        assert_eq!(first[3], fourth);
        assert_eq!(first[6..], ["vars currentEpoch 3 lastVoteEpoch 0"]);
        assert!(files[3].contains("127.0.0.1:4@14 myself,slave "));
        assert!(files[3].contains("127.0.0.1:1@11 master "));
    }
}
