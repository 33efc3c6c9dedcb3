//! One attempt to take the lock of an election, by a transaction that the servers put in order.

use sd_core::{Error, ErrorKind, FencingToken, Result};

use crate::client::Client;
use crate::client::kv::{KvEntry, KvOp, Refusal, Txn};
use crate::client::sessions::ended;
use crate::election::participation::Participation;
use crate::election::{leader_record, token_domain};

/// What became of an attempt to take the lock.
#[derive(Debug)]
pub(crate) enum LockAttempt {
    Won(FencingToken),
    /// Another session was faster, or something else has changed.
    Late,
    /// The lock-delay lasts, because the session that had the lock was lost.
    Delayed,
    Gone(Error),
}

/// Takes the lock for `session` if the key still is as it was found, free.
pub(crate) async fn attempt(
    client: &Client,
    op: &'static str,
    participation: &Participation,
    session: &str,
    found: Option<&KvEntry>,
) -> Result<LockAttempt> {
    // A candidate that has left meanwhile takes no lock any more.
    if participation.session().as_deref() != Some(session) {
        return Ok(LockAttempt::Gone(ended(op)));
    }
    let keys = &participation.keys;
    let value = leader_record::encode(participation.id.candidate, None, &participation.value());
    let lock = [
        KvOp::get(keys.history()),
        // A second attempt of ours would move the index that is our token.
        KvOp::check_unchanged(keys.leader(), found),
        KvOp::lock(keys.leader(), session, value),
    ];
    let taken = match client.txn(op, &lock).await? {
        // The first election here, or the servers have lost their data.
        Txn::Refused(refusals) if refusals.iter().any(|refusal| refusal.step == 0) => {
            token_domain::ensure(client, op, keys).await?;
            client.txn(op, &lock).await?
        }
        txn => txn,
    };
    match taken {
        Txn::Done(done) => {
            let (Some(history), Some(leader)) = (done.first(), done.last()) else {
                return Err(Error::new(ErrorKind::InvalidData, op)
                    .because("Consul answered the transaction without its results"));
            };
            // What may not be read is left out.
            if history.key != keys.history() {
                return Err(Error::new(ErrorKind::Denied, op).because(format!(
                    "the token may not read {}: it needs key:write below election_prefix",
                    keys.history()
                )));
            }
            let domain = token_domain::read(history);
            Ok(LockAttempt::Won(FencingToken::new(
                domain,
                leader.modify_index,
            )))
        }
        Txn::Refused(refusals) => Ok(refused(op, &refusals)),
    }
}

fn refused(op: &'static str, refusals: &[Refusal]) -> LockAttempt {
    let says = |text| refusals.iter().any(|refusal| refusal.what.contains(text));
    if says("invalid session") {
        LockAttempt::Gone(ended(op))
    } else if says("lock delay") {
        LockAttempt::Delayed
    } else {
        LockAttempt::Late
    }
}
