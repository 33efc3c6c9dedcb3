//! Records a term in a node that belongs to no session, so that the record outlives the candidate's.

use sd_backend::TermRecorder;
use sd_core::Result;
use sd_core::port::Predecessor;
use zookeeper_client as zk;

use crate::client::error::translate;
use crate::client::parents::make_parents;
use crate::client::session::Session;
use crate::election::candidate_node::CandidateNode;
use crate::election::keys::ElectionKeys;

/// Records that the term has begun, once; tells how the one before it ended. `None` if the record changed meanwhile, or the node is gone.
pub(crate) async fn begin(
    recorder: &TermRecorder,
    candidate: &CandidateNode,
) -> Result<Option<Predecessor>> {
    const OP: &str = "zk: record term";
    let (session, term) = (candidate.session(), candidate.keys.term());
    let write = async |found: Option<(Vec<u8>, i32)>, record: Vec<u8>| {
        let version = found.map(|(_, version)| version);
        write(candidate, OP, version, &record).await
    };
    let (token, read) = (candidate.token().value(), read(session, OP, term));
    recorder
        .begin(token, read, |(stored, _)| stored, write)
        .await
}

/// Writes the record if it still has this version, or is still not there, and if the candidate's node is. Says whether it did that.
async fn write(
    candidate: &CandidateNode,
    op: &'static str,
    version: Option<i32>,
    record: &[u8],
) -> Result<bool> {
    let (session, term) = (candidate.session(), candidate.keys.term());
    let failed = |error| translate(op, error);
    let client = session.client(op).await?;
    let mut write = client.new_multi_writer();
    write
        .add_check_version(&candidate.path, -1)
        .map_err(failed)?;
    let added = if version.is_some() {
        write.add_set_data(term, record, version)
    } else {
        let options = zk::CreateMode::Persistent.with_acls(candidate.acls);
        write.add_create(term, record, &options)
    };
    added.map_err(failed)?;
    match session.answer(op, write.commit()).await? {
        Ok(_) => Ok(true),
        Err(zk::MultiWriteError::OperationFailed {
            index: 1,
            source: zk::Error::NoNode,
        }) if version.is_none() => {
            let parent = term.rsplit_once('/').map_or("", |(parent, _)| parent);
            make_parents(session, candidate.acls, op, parent).await?;
            Ok(false)
        }
        Err(zk::MultiWriteError::OperationFailed {
            source: zk::Error::NoNode | zk::Error::BadVersion | zk::Error::NodeExists,
            ..
        }) => Ok(false),
        Err(error) => Err(failed(error.into())),
    }
}

/// Marks the last term as ended if it is that of the node with this name, whose leader has stopped, and deletes the node in the same step.
/// Says whether it did that.
pub(crate) async fn end(session: &Session, keys: &ElectionKeys, node: &str) -> Result<bool> {
    const OP: &str = "zk: end term";
    let Some((stored, version)) = read(session, OP, keys.term()).await? else {
        return Ok(false);
    };
    let Some(ended) = TermRecorder::ended(&stored, node) else {
        return Ok(false);
    };
    let failed = |error| translate(OP, error);
    let client = session.client(OP).await?;
    let mut write = client.new_multi_writer();
    write
        .add_set_data(keys.term(), &ended, Some(version))
        .and_then(|()| write.add_delete(&keys.candidate(node), None))
        .map_err(failed)?;
    match session.answer(OP, write.commit()).await? {
        Ok(_) => return Ok(true),
        // The node is gone. If the record was changed since, another term has begun, and it no longer matters how ours ended.
        Err(zk::MultiWriteError::OperationFailed { index: 1, .. }) => {}
        Err(zk::MultiWriteError::OperationFailed { .. }) => return Ok(false),
        Err(error) => return Err(failed(error.into())),
    }
    let marked = client.set_data(keys.term(), &ended, Some(version));
    match session.answer(OP, marked).await? {
        Ok(_) | Err(zk::Error::BadVersion | zk::Error::NoNode) => Ok(false),
        Err(error) => Err(failed(error)),
    }
}

/// The record and its version.
async fn read(session: &Session, op: &'static str, term: &str) -> Result<Option<(Vec<u8>, i32)>> {
    let client = session.client(op).await?;
    match session.answer(op, client.get_data(term)).await? {
        Ok((data, stat)) => Ok(Some((data, stat.version))),
        Err(zk::Error::NoNode) => Ok(None),
        Err(error) => Err(translate(op, error)),
    }
}
