//! Where an election is kept. Pure functions.
//!
//! All keys of one election begin with `<prefix>:{<name>}:`. A Cluster takes the part between the braces for the whole key when it chooses
//! the slot, so that one script can change them together. No name holds a brace.

use sd_core::ElectionName;

/// The keys of one election.
#[derive(Clone, Debug)]
pub(crate) struct ElectionKeys {
    /// The candidates, by their tokens, which grow with each that joins.
    pub(crate) order: String,
    /// When the lease of each ends, in microseconds of the server's clock.
    pub(crate) leases: String,
    /// The random number by which a participation proves that an entry is its own.
    pub(crate) owners: String,
    /// What observers see.
    pub(crate) values: String,
    /// The name of the history that the tokens are of, and the last token.
    pub(crate) history: String,
    /// The record of the last term.
    pub(crate) term: String,
    /// No key: the channel where changes are told.
    pub(crate) changes: String,
}

impl ElectionKeys {
    pub(crate) fn new(prefix: &str, name: &ElectionName) -> Self {
        let key = |part: &str| format!("{prefix}:{{{name}}}:{part}");
        Self {
            order: key("order"),
            leases: key("leases"),
            owners: key("owners"),
            values: key("values"),
            history: key("history"),
            term: key("term"),
            changes: key("changes"),
        }
    }

    /// The keys of the candidates, in the order in which the scripts have them.
    pub(crate) fn queue(&self) -> Vec<&str> {
        vec![
            &self.order,
            &self.leases,
            &self.owners,
            &self.values,
            &self.history,
        ]
    }

    /// The same, and the record of the last term.
    pub(crate) fn queue_and_term(&self) -> Vec<&str> {
        let mut keys = self.queue();
        keys.push(&self.term);
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::topology::slot_of;

    #[test]
    fn all_keys_of_an_election_are_in_the_slot_of_its_name() {
        let name = ElectionName::new("reports/nightly").unwrap();
        let keys = ElectionKeys::new("elections", &name);
        assert_eq!(keys.order, "elections:{reports/nightly}:order");
        for key in keys.queue_and_term() {
            assert_eq!(slot_of(key), slot_of("reports/nightly"), "{key}");
        }
    }
}
