//! What wakes a candidate: the deletion of its own entry, or of one of the two before it.
//!
//! It begins now, not at a position, so nothing that etcd compacts can break it; and it asks nothing of the server while all is
//! quiet. A connection that died is found out by HTTP/2 pings, or sooner by confirmations, which also look after the entry and the
//! one before it.
//!
//! A candidate whose only predecessor leads watches all entries, on one watch. Only within one watch does etcd tell what happens in its
//! order: so when the deletion of the leader's entry comes, and that of its own has not, its own entry was there at that revision and
//! was the first. Such a candidate needs to ask nothing before it leads.

use etcd_client::{Event, ResponseHeader, WatchResponse, WatchStream};
use sd_backend::Woken;
use sd_core::Result;

use crate::client::connection::Connection;
use crate::client::error::{caught, stream_ended, translate};
use crate::election::candidate_key::{Ahead, CandidateKey};

/// A stream with the watches of one candidate.
#[derive(Debug)]
pub(crate) struct DeletionWatch {
    connection: Connection,
    stream: WatchStream,
    watched: Watched,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Watched {
    /// Our own entry and these, each on a watch of its own.
    Own(Vec<Vec<u8>>),
    /// Every entry of the election, on one watch.
    All,
}

impl Watched {
    fn for_one_behind(ahead: Option<&Ahead>) -> Self {
        match ahead {
            Some(Ahead { beyond: None, .. }) => Self::All,
            Some(Ahead { next, beyond, .. }) => Self::Own(
                [Some(next), beyond.as_ref()]
                    .into_iter()
                    .flatten()
                    .cloned()
                    .collect(),
            ),
            None => Self::Own(Vec::new()),
        }
    }
}

impl DeletionWatch {
    /// Watches from now on for a candidate that stands behind these: read where the entry stands only after this has returned.
    pub(crate) async fn open(
        candidate: &CandidateKey,
        op: &'static str,
        ahead: Option<&Ahead>,
    ) -> Result<Self> {
        let watched = Watched::for_one_behind(ahead);
        let (client, own) = (&candidate.client, candidate.key.as_bytes());
        let (connection, stream) = match &watched {
            Watched::All => {
                let (start, end) = candidate.keys.entries();
                client
                    .watch_deletions(op, &[(start.as_bytes(), Some(end.as_bytes()))])
                    .await?
            }
            Watched::Own(others) => {
                let others = others.iter().map(Vec::as_slice);
                let keys = std::iter::once(own).chain(others);
                let keys: Vec<_> = keys.map(|key| (key, None)).collect();
                client.watch_deletions(op, &keys).await?
            }
        };
        Ok(Self {
            connection,
            stream,
            watched,
        })
    }

    /// Whether it tells all that matters to an entry that stands behind these, or is first.
    pub(crate) fn covers(&self, ahead: Option<&Ahead>) -> bool {
        let is_enough = ahead.is_none() || self.watched == Watched::for_one_behind(ahead);
        !self.connection.is_retired() && is_enough
    }

    /// Returns when an entry that matters was deleted, or may have been. An error ends it. Cancel-safe.
    pub(crate) async fn woken(
        &mut self,
        candidate: &CandidateKey,
        op: &'static str,
        ahead: Option<&Ahead>,
    ) -> Result<Woken> {
        let client = &candidate.client;
        loop {
            let answer = tokio::select! {
                biased;
                closed = client.signal.closed(op) => return Err(closed),
                answer = caught(self.stream.message()) => answer,
                () = self.connection.retired() => return Ok(Woken::Unsure),
            };
            match answer.and_then(|answer| answer.ok_or_else(stream_ended)) {
                Ok(answer) => {
                    client.check_watch(op, &self.connection, &answer)?;
                    let is_in_order = self.watched == Watched::All;
                    let own = candidate.key.as_bytes();
                    if let Some(woken) = told(&answer, own, ahead, is_in_order) {
                        // Revisions of another history prove nothing, and a proxy names no cluster.
                        let cluster = answer.header().map(ResponseHeader::cluster_id);
                        let is_same = cluster == Some(candidate.created.cluster);
                        return Ok(if is_same { woken } else { Woken::Unsure });
                    }
                }
                Err(error) => {
                    client.retire(&self.connection);
                    return Err(translate(op, error));
                }
            }
        }
    }
}

/// What an answer tells to the candidate whose entry has the key `own`. `None` if nothing that matters to it.
fn told(
    answer: &WatchResponse,
    own: &[u8],
    ahead: Option<&Ahead>,
    is_in_order: bool,
) -> Option<Woken> {
    let deleted = answer.events().iter().filter_map(Event::kv);
    let deleted = deleted.map(|kv| (kv.key(), kv.mod_revision()));
    woken_by(deleted, own, ahead, is_in_order)
}

/// As [`told`], of keys and the revisions at which they were deleted.
fn woken_by<'a>(
    deleted: impl Iterator<Item = (&'a [u8], i64)>,
    own: &[u8],
    ahead: Option<&Ahead>,
    is_in_order: bool,
) -> Option<Woken> {
    let mut woken = None;
    for (key, at) in deleted {
        let next = ahead.filter(|ahead| ahead.next == key);
        let leads = next.filter(|ahead| ahead.beyond.is_none() && at > ahead.read_at);
        let is_beyond = ahead.is_some_and(|ahead| ahead.beyond.as_deref() == Some(key));
        let told = match next {
            _ if key == own || is_beyond => Woken::Unsure,
            Some(_) if is_in_order && leads.is_some() => Woken::First,
            Some(_) => Woken::Unsure,
            None => continue,
        };
        woken = Some(match woken {
            // Two things at once: read how that leaves us.
            Some(before) if before != told => Woken::Unsure,
            _ => told,
        });
    }
    woken
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ_AT: i64 = 10;

    fn ahead(beyond: Option<&str>) -> Ahead {
        Ahead {
            next: b"next".to_vec(),
            beyond: beyond.map(|key| key.as_bytes().to_vec()),
            read_at: READ_AT,
        }
    }

    fn woken(deleted: &[(&str, i64)], ahead: Option<&Ahead>, is_in_order: bool) -> Option<Woken> {
        let deleted = deleted.iter().map(|(key, at)| (key.as_bytes(), *at));
        woken_by(deleted, b"own", ahead, is_in_order)
    }

    #[test]
    fn only_the_deletion_of_the_only_one_before_on_a_watch_in_order_makes_first() {
        let leader = ahead(None);
        let gone = [("next", 11)];
        assert_eq!(woken(&gone, Some(&leader), true), Some(Woken::First));
        assert_eq!(woken(&gone, Some(&leader), false), Some(Woken::Unsure));
        let in_line = ahead(Some("beyond"));
        assert_eq!(woken(&gone, Some(&in_line), true), Some(Woken::Unsure));
        // Of the key's life before the one that was read.
        let earlier = [("next", READ_AT)];
        assert_eq!(woken(&earlier, Some(&leader), true), Some(Woken::Unsure));
    }

    #[test]
    fn a_deletion_of_the_own_entry_is_never_overheard_whatever_comes_with_it() {
        let leader = ahead(None);
        for deleted in [
            &[("own", 11)][..],
            &[("own", 11), ("next", 11)],
            &[("next", 11), ("own", 11)],
            &[("next", 11), ("other", 11), ("own", 11)],
        ] {
            assert_eq!(woken(deleted, Some(&leader), true), Some(Woken::Unsure));
        }
        assert_eq!(woken(&[("own", 11)], None, true), Some(Woken::Unsure));
    }

    #[test]
    fn others_wake_only_the_one_that_is_two_places_behind() {
        let others = [("other", 11), ("another", 12)];
        let in_line = ahead(Some("beyond"));
        assert_eq!(woken(&others, Some(&ahead(None)), true), None);
        assert_eq!(woken(&others, None, true), None);
        assert_eq!(woken(&[], Some(&in_line), false), None);
        let beyond = [("beyond", 11)];
        assert_eq!(woken(&beyond, Some(&in_line), false), Some(Woken::Unsure));
    }
}
