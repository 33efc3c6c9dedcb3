//! The nodes above a record, up to the chroot of the configuration, which is the operator's to make.

use sd_core::{Error, ErrorKind, Result};
use zookeeper_client as zk;

use crate::client::error::translate;
use crate::client::session::Session;

/// More than any path has names. ZooKeeper may remove what was just made, since it is empty.
const MOST_STEPS: usize = 1024;

/// Makes a node and those above it, as far as they are missing: as containers, which ZooKeeper removes some time after they became empty,
/// or as persistent nodes where it has no containers.
pub(crate) async fn make_parents(
    session: &Session,
    acls: zk::Acls<'static>,
    op: &'static str,
    path: &str,
) -> Result<()> {
    let client = session.client(op).await?;
    let mut mode = zk::CreateMode::Container;
    let mut missing = vec![path];
    for _ in 0..MOST_STEPS {
        let Some(&node) = missing.last() else {
            return Ok(());
        };
        let options = mode.with_acls(acls);
        let answer = session
            .answer(op, client.create(node, &[], &options))
            .await?;
        match answer {
            Ok(_) | Err(zk::Error::NodeExists) => drop(missing.pop()),
            Err(zk::Error::NoNode) => match node.rsplit_once('/') {
                Some((above, _)) if !above.is_empty() => missing.push(above),
                _ => return Err(no_chroot(op, client.path())),
            },
            Err(zk::Error::Unimplemented) if mode == zk::CreateMode::Container => {
                mode = zk::CreateMode::Persistent;
            }
            Err(error) => return Err(translate(op, error)),
        }
    }
    Err(Error::new(ErrorKind::Unavailable, op).because(format!(
        "nodes above {path} are removed as soon as they are made"
    )))
}

/// Tells a folder that is missing from one that cannot be, since the chroot is missing: then it is not known what there is.
///
/// # Errors
/// `NotFound` if there is no chroot.
pub(crate) async fn check_chroot(session: &Session, op: &'static str) -> Result<()> {
    let client = session.client(op).await?;
    if client.path() == "/" {
        return Ok(());
    }
    match session.call(op, client.check_stat("/")).await? {
        Some(_) => Ok(()),
        None => Err(no_chroot(op, client.path())),
    }
}

fn no_chroot(op: &'static str, chroot: &str) -> Error {
    Error::new(ErrorKind::NotFound, op).because(format!(
        "there is no node {chroot}, which the chroot of the configuration names: make it"
    ))
}
