//! What a feed of an election has told.

use sd_core::clock::Moment;
use sd_core::port::{Leader, LeaderFeed};

/// Who leads, as a [`LeaderWatcher`](sd_core::port::LeaderWatcher) has told it last: it tells a leader once, and then only that the server
/// is there.
#[derive(Debug)]
pub struct ToldLeader {
    leader: Option<Leader>,
    /// Since when that is known, until it is told.
    untold: Option<Moment>,
}

impl ToldLeader {
    /// What was found when the feed was opened. It is still to be told.
    pub fn untold(leader: Option<Leader>, as_of: Moment) -> Self {
        Self {
            leader,
            untold: Some(as_of),
        }
    }

    /// What is to be told before anything else.
    pub fn first(&mut self) -> Option<LeaderFeed> {
        let as_of = self.untold.take()?;
        let leader = self.leader.clone();
        Some(LeaderFeed::Leader { leader, as_of })
    }

    /// What to tell of who leads now.
    pub fn news(&mut self, leader: Option<Leader>, as_of: Moment) -> LeaderFeed {
        if leader == self.leader {
            return LeaderFeed::Alive { as_of };
        }
        self.leader.clone_from(&leader);
        LeaderFeed::Leader { leader, as_of }
    }

    /// Who was told last to lead.
    pub fn last(&self) -> Option<&Leader> {
        self.leader.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use sd_core::FencingToken;

    use super::*;

    #[test]
    fn a_leader_is_told_once_and_again_when_it_changes() {
        let leader = |token| {
            let token = FencingToken::new("test", token);
            Some(Leader::new(None, *b"v", token))
        };
        let at = Moment::ZERO;
        let mut told = ToldLeader::untold(leader(1), at);
        let first = told.first();
        assert!(matches!(
            first,
            Some(LeaderFeed::Leader {
                leader: Some(_),
                ..
            })
        ));
        assert!(told.first().is_none());
        assert!(matches!(told.news(leader(1), at), LeaderFeed::Alive { .. }));
        let next = told.news(leader(2), at);
        assert!(matches!(
            next,
            LeaderFeed::Leader {
                leader: Some(_),
                ..
            }
        ));
        let none = told.news(None, at);
        assert!(matches!(none, LeaderFeed::Leader { leader: None, .. }));
        assert_eq!(told.last(), None);
    }
}
