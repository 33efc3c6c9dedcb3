//! Reads one service as a whole, and the list of services.

use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use sd_core::{Result, ServiceList, ServiceName};
use zookeeper_client as zk;

use crate::client::error::translate;
use crate::client::parents::check_chroot;
use crate::client::session::Session;
use crate::codec::Layout;
use crate::reading::service_set::ServiceSet;

/// How many reads are under way at once.
pub(crate) const AT_ONCE: usize = 256;
/// How long a feed may take for what it tells first: each node or folder is read for it, and each read has a limit of its own.
pub(crate) const FIRST_WITHIN: Duration = Duration::from_secs(120);

/// Reads all records of a service, no older than the call.
pub(crate) async fn read_service(
    session: &Session,
    layout: &Layout,
    op: &'static str,
    service: &ServiceName,
) -> Result<ServiceSet> {
    let folder = layout.folder(service);
    let client = session.client(op).await?;
    let mut set = ServiceSet::new(service.clone(), folder.clone());
    let (synced, found) = tokio::join!(
        session.call(op, client.sync(&folder)),
        session.answer(op, client.get_children(&folder)),
    );
    synced?;
    let (nodes, stat) = match found? {
        Ok(found) => found,
        Err(zk::Error::NoNode) => {
            check_chroot(session, op).await?;
            return Ok(set);
        }
        Err(error) => return Err(translate(op, error)),
    };
    set.note(stat.pzxid);
    let mut reads = FuturesUnordered::new();
    let mut waiting = nodes.into_iter();
    loop {
        while reads.len() < AT_ONCE
            && let Some(node) = waiting.next()
        {
            let path = format!("{folder}/{node}");
            let client = &client;
            reads.push(async move { (node, session.answer(op, client.get_data(&path)).await) });
        }
        let Some((node, read)) = reads.next().await else {
            break;
        };
        match read? {
            Ok((data, stat)) => set.put(&node, &data, &stat, None),
            // It has gone since.
            Err(zk::Error::NoNode) => {}
            Err(zk::Error::NoAuth) => set.refuse(&node),
            Err(error) => return Err(translate(op, error)),
        }
    }
    set.check_rights(op)?;
    Ok(set)
}

/// Reads the names of all services that have a record, and how many folders are of none.
pub(crate) async fn read_services(
    session: &Session,
    layout: &Layout,
    op: &'static str,
) -> Result<ServiceList> {
    let root = layout.root();
    let client = session.client(op).await?;
    let (synced, found) = tokio::join!(
        session.call(op, client.sync(root)),
        session.answer(op, client.list_children(root)),
    );
    synced?;
    let nodes = match found? {
        Ok(nodes) => nodes,
        Err(zk::Error::NoNode) => {
            check_chroot(session, op).await?;
            return Ok(ServiceList::default());
        }
        Err(error) => return Err(translate(op, error)),
    };
    // Other programs' nodes may lie here, too.
    let services: Vec<_> = nodes
        .iter()
        .filter_map(|node| Layout::service_of(node))
        .collect();
    let unlisted = nodes.len() - services.len();
    let mut looks = FuturesUnordered::new();
    let mut waiting = services.into_iter();
    let mut found = Vec::new();
    loop {
        while looks.len() < AT_ONCE
            && let Some(service) = waiting.next()
        {
            looks.push(look_at(session, layout, op, &client, service));
        }
        let Some(looked) = looks.next().await else {
            found.sort();
            return Ok(ServiceList::from(found).with_unlisted(unlisted));
        };
        found.extend(looked?);
    }
}

/// The service, if it has a record.
async fn look_at(
    session: &Session,
    layout: &Layout,
    op: &'static str,
    client: &zk::Client,
    service: ServiceName,
) -> Result<Option<ServiceName>> {
    let folder = layout.folder(&service);
    let stat = session.call(op, client.check_stat(&folder)).await?;
    let has_records = stat.is_some_and(|stat| stat.num_children > 0);
    Ok(has_records.then_some(service))
}
