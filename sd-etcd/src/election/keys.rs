//! Where an election is kept. Pure functions.
//!
//! Candidates are `<prefix>/<name>/.entries/<id>`, the record of the last term is `<prefix>/<name>/.term`. No segment of a name
//! begins with a dot, so elections whose names begin the same do not mix.

use sd_core::ElectionName;
use sd_core::port::CandidateId;

/// The keys of one election.
#[derive(Clone, Debug)]
pub(crate) struct ElectionKeys {
    /// Before the ids of candidates.
    entries: String,
    end: String,
    term: String,
}

impl ElectionKeys {
    pub(crate) fn new(prefix: &str, name: &ElectionName) -> Self {
        Self {
            entries: format!("{prefix}/{name}/.entries/"),
            // The byte after the slash.
            end: format!("{prefix}/{name}/.entries0"),
            term: format!("{prefix}/{name}/.term"),
        }
    }

    /// The range of all candidates, end excluded.
    pub(crate) fn entries(&self) -> (&str, &str) {
        (&self.entries, &self.end)
    }

    /// The key of a candidate.
    pub(crate) fn entry(&self, id: CandidateId) -> String {
        format!("{}{id}", self.entries)
    }

    /// Whose key this is; `None` if another program wrote it in its own way.
    pub(crate) fn id_of(&self, key: &[u8]) -> Option<CandidateId> {
        let id = key.strip_prefix(self.entries.as_bytes())?;
        std::str::from_utf8(id).ok()?.parse().ok()
    }

    /// The key of the record of the last term.
    pub(crate) fn term(&self) -> &str {
        &self.term
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(name: &str) -> ElectionKeys {
        ElectionKeys::new("/elections", &ElectionName::new(name).unwrap())
    }

    #[test]
    fn a_candidate_is_found_again_by_its_key() {
        let keys = keys("reports/nightly");
        let id = CandidateId::from_u64(0xab).unwrap();
        let key = keys.entry(id);
        assert_eq!(key, "/elections/reports/nightly/.entries/00000000000000ab");
        assert_eq!(keys.id_of(key.as_bytes()), Some(id));
        // As Go's clients write it.
        assert_eq!(
            keys.id_of(b"/elections/reports/nightly/.entries/ab"),
            Some(id)
        );
        for foreign in [
            &b"/elections/reports/nightly/.entries/host-7"[..],
            b"/elections/reports/nightly/.entries/\xff",
            b"/elections/reports/.entries/ab",
        ] {
            assert_eq!(keys.id_of(foreign), None);
        }
    }

    #[test]
    fn the_entries_of_one_election_hold_nothing_of_another() {
        let names = ["a", "a/b", "a-b", "a.b", "a0", "b"];
        let id = CandidateId::random();
        for name in names {
            let (start, end) = (keys(name).entries.clone(), keys(name).end);
            for other in names {
                let key = keys(other).entry(id);
                let inside = start <= key && key < end;
                assert_eq!(inside, name == other, "{name} {other}");
                let term = keys(other).term;
                assert!(!(start <= term && term < end), "{name} {other}");
            }
        }
    }
}
