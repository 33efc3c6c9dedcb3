//! The name of the history that tokens are of. ZooKeeper has none that it tells.

use std::sync::Arc;

use sd_backend::history_name;
use sd_core::Result;
use zookeeper_client as zk;

use crate::client::error::translate;
use crate::client::parents::make_parents;
use crate::client::session::Session;

/// The name, written first if there is none.
pub(crate) async fn ensure(
    session: &Session,
    acls: zk::Acls<'static>,
    op: &'static str,
    node: &str,
) -> Result<Arc<str>> {
    let options = zk::CreateMode::Persistent.with_acls(acls);
    let find = || find(session, op, node);
    let write = async |name: String| {
        let client = session.client(op).await?;
        let created = client.create(node, name.as_bytes(), &options);
        match session.answer(op, created).await? {
            // Another candidate may have been faster.
            Ok(_) | Err(zk::Error::NodeExists) => Ok(()),
            Err(zk::Error::NoNode) => {
                let parent = node.rsplit_once('/').map_or("", |(parent, _)| parent);
                make_parents(session, acls, op, parent).await
            }
            Err(error) => Err(translate(op, error)),
        }
    };
    // It is large, and hardly ever goes beyond its first read.
    Box::pin(history_name(op, node, find, write)).await
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
