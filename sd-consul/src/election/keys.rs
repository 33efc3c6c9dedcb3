//! Where an election is kept. Pure functions.
//!
//! Who leads has the lock on `<prefix>/<name>/.leader`, the record of the last term is `<prefix>/<name>/.term`, and candidates are
//! known by the names of their sessions, `<prefix>/<name>/.entries/<id>:<nonce>`. `<prefix>/.history` names the history of which all
//! tokens are. No segment of a name begins with a dot, so elections whose names begin the same do not mix.

use sd_core::ElectionName;
use sd_core::port::CandidateId;

/// The keys of one election.
#[derive(Clone, Debug)]
pub(crate) struct ElectionKeys {
    folder: String,
    leader: String,
    term: String,
    history: String,
}

impl ElectionKeys {
    pub(crate) fn new(prefix: &str, name: &ElectionName) -> Self {
        Self {
            folder: format!("{prefix}/{name}"),
            leader: format!("{prefix}/{name}/.leader"),
            term: format!("{prefix}/{name}/.term"),
            history: format!("{prefix}/.history"),
        }
    }

    /// The key whose lock is the lead.
    pub(crate) fn leader(&self) -> &str {
        &self.leader
    }

    /// The key of the record of the last term.
    pub(crate) fn term(&self) -> &str {
        &self.term
    }

    /// The key of the name of the history.
    pub(crate) fn history(&self) -> &str {
        &self.history
    }

    /// How the names of all sessions of a candidate begin.
    pub(crate) fn candidate(&self, id: CandidateId) -> String {
        format!("{}/.entries/{id}:", self.folder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_of_one_election_are_of_no_other() {
        let keys = |name: &str| ElectionKeys::new("elections", &ElectionName::new(name).unwrap());
        let id = CandidateId::from_u64(0xab).unwrap();
        let one = keys("reports/nightly");
        assert_eq!(one.leader(), "elections/reports/nightly/.leader");
        assert_eq!(one.term(), "elections/reports/nightly/.term");
        assert_eq!(
            one.candidate(id),
            "elections/reports/nightly/.entries/00000000000000ab:"
        );
        for other in ["reports", "reports/nightly/b", "reports/nightlyb"].map(keys) {
            assert_ne!(one.leader(), other.leader());
            assert!(!one.candidate(id).starts_with(&other.candidate(id)));
            assert_eq!(one.history(), other.history());
        }
    }
}
