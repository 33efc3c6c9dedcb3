//! The name of the history that tokens are of: random, written by the first candidate, and gone with the data.
//!
//! ZooKeeper has none that it tells. Without it, the tokens of servers that lost their data would look like old ones.

use std::sync::Arc;

use sd_core::{Error, ErrorKind, Result};
use zookeeper_client as zk;

use crate::client::error::translate;
use crate::client::parents::make_parents;
use crate::client::session::Session;

/// How often it is read again because another candidate has just written it.
const MOST_ROUNDS: u32 = 3;

/// The name, written first if there is none.
pub(crate) async fn ensure(
    session: &Session,
    acls: zk::Acls<'static>,
    op: &'static str,
    node: &str,
) -> Result<Arc<str>> {
    let options = zk::CreateMode::Persistent.with_acls(acls);
    for _ in 0..MOST_ROUNDS {
        if let Some(name) = find(session, op, node).await? {
            return Ok(name);
        }
        let name = format!("{:016x}", fastrand::u64(..));
        let client = session.client(op).await?;
        let created = client.create(node, name.as_bytes(), &options);
        match session.answer(op, created).await? {
            Ok(_) => return Ok(name.into()),
            // Another candidate was faster.
            Err(zk::Error::NodeExists) => {}
            Err(zk::Error::NoNode) => {
                let parent = node.rsplit_once('/').map_or("", |(parent, _)| parent);
                make_parents(session, acls, op, parent).await?;
            }
            Err(error) => return Err(translate(op, error)),
        }
    }
    Err(Error::new(ErrorKind::Unavailable, op).because(format!(
        "{node} is missing after {MOST_ROUNDS} attempts to write it: look for a program that deletes it"
    )))
}

/// The name, if there was an election.
pub(crate) async fn find(
    session: &Session,
    op: &'static str,
    node: &str,
) -> Result<Option<Arc<str>>> {
    let client = session.client(op).await?;
    match session.answer(op, client.get_data(node)).await? {
        Ok((name, _)) => Ok(Some(String::from_utf8_lossy(&name).into())),
        Err(zk::Error::NoNode) => Ok(None),
        Err(error) => Err(translate(op, error)),
    }
}
