//! What etcd's answers hold: where in the history they were given, and what was found. Pure functions.

use etcd_client::{KeyValue, ResponseHeader, TxnOpResponse, TxnResponse};
use sd_core::{Error, ErrorKind, Result};

/// A position in the history of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) cluster: u64,
    pub(crate) revision: i64,
}

impl Position {
    /// The history that this is a position in: revisions are ordered within one cluster.
    pub(crate) fn domain(&self) -> String {
        format!("{:016x}", self.cluster)
    }
}

/// Where an answer was given.
pub(crate) fn position(op: &'static str, header: Option<&ResponseHeader>) -> Result<Position> {
    let header = header.ok_or_else(|| {
        Error::new(ErrorKind::InvalidData, op).because("the server's answer has no header")
    })?;
    Ok(Position {
        cluster: header.cluster_id(),
        revision: header.revision(),
    })
}

/// What each read of a transaction found, in their order.
pub(crate) fn found_sets(answer: &TxnResponse) -> Vec<Vec<KeyValue>> {
    let steps = answer.op_responses().into_iter();
    steps
        .filter_map(|step| match step {
            TxnOpResponse::Get(mut got) => Some(got.take_kvs()),
            _ => None,
        })
        .collect()
}

/// What the only read of a transaction found.
pub(crate) fn found(answer: &TxnResponse) -> Option<KeyValue> {
    found_sets(answer).into_iter().flatten().next()
}
