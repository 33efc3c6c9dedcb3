//! The nodes of records: found, and removed on purpose unless they change meanwhile.

use sd_backend::Record;
use sd_core::{Error, ErrorKind, RecordId, Result};
use zookeeper_client::{self as zk, Stat};

use crate::client::error::translate;
use crate::client::session::Session;
use crate::codec::names::node_name;
use crate::codec::reception::protected_name;
use crate::codec::{Layout, Origin, Place, decode, mark_withdrawn};

/// How often a write starts over because the node changed between a read and the write.
pub(crate) const MOST_ROUNDS: u32 = 5;
/// How many digits the server appends to the name of a sequential node.
const SEQUENCE_DIGITS: usize = 10;

/// The records of one ensemble, for one request in one session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Records<'a> {
    pub(crate) session: &'a Session,
    pub(crate) layout: &'a Layout,
    pub(crate) op: &'static str,
}

/// A node under the id of a record, as it was found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) path: String,
    pub(crate) data: Vec<u8>,
    pub(crate) stat: Stat,
    /// What is stored there, or why it cannot be understood.
    pub(crate) stored: Result<Record, String>,
}

impl Records<'_> {
    /// Has what is read after it be no older than this moment, whichever member has the connection.
    pub(crate) async fn sync(&self) -> Result<()> {
        let client = self.session.client(self.op).await?;
        self.session.call(self.op, client.sync("/")).await
    }

    /// Reads the node at a path, which is under the id of `record`.
    pub(crate) async fn read(&self, record: &RecordId, path: &str) -> Result<Option<Found>> {
        let client = self.session.client(self.op).await?;
        let (data, stat) = match self.session.answer(self.op, client.get_data(path)).await? {
            Ok(read) => read,
            Err(zk::Error::NoNode) => return Ok(None),
            Err(error) => return Err(translate(self.op, error)),
        };
        let node = path.rsplit_once('/').map_or(path, |(_, node)| node);
        let origin = Origin {
            node,
            czxid: stat.czxid,
            session: stat.ephemeral_owner,
        };
        Ok(Some(Found {
            stored: decode(&record.service, &origin, &data),
            path: path.to_owned(),
            data,
            stat,
        }))
    }

    /// Finds the node of a record where we keep it: that under its id, or that of its run where runs have nodes of their own.
    pub(crate) async fn find(&self, record: &RecordId) -> Result<Option<Found>> {
        match self.layout.place(record) {
            Place::Node(path) => self.read(record, &path).await,
            Place::Sequential { folder, .. } => {
                let nodes = self.nodes(&folder).await?;
                let is_it = |node: &&String| {
                    protected_name(node).is_some_and(|protected| {
                        protected.id == record.id.as_str()
                            && protected.incarnation == record.incarnation
                    })
                };
                match nodes.unwrap_or_default().iter().find(is_it) {
                    Some(node) => self.read(record, &format!("{folder}/{node}")).await,
                    None => Ok(None),
                }
            }
        }
    }

    /// Finds the node of a record wherever any format keeps it.
    pub(crate) async fn find_anywhere(&self, record: &RecordId) -> Result<Option<Found>> {
        if let Some(found) = self.find(record).await? {
            return Ok(Some(found));
        }
        let folder = self.layout.folder(&record.service);
        let plain = node_name(record.id.as_str());
        let may_be = |node: &&String| {
            let is_numbered = node.strip_prefix(&*plain).is_some_and(|rest| {
                rest.is_empty()
                    || (rest.len() == SEQUENCE_DIGITS && rest.bytes().all(|b| b.is_ascii_digit()))
            });
            is_numbered
                || protected_name(node).is_some_and(|protected| protected.id == record.id.as_str())
        };
        let mut last = None;
        for node in self
            .nodes(&folder)
            .await?
            .unwrap_or_default()
            .iter()
            .filter(may_be)
        {
            let found = self.read(record, &format!("{folder}/{node}")).await?;
            let Some(found) = found else { continue };
            let is_run = matches!(&found.stored, Ok(stored)
                if stored.instance().incarnation() == record.incarnation);
            last = Some(found);
            if is_run {
                break;
            }
        }
        Ok(last)
    }

    /// The names of the nodes in a folder. `None` if there is no folder.
    pub(crate) async fn nodes(&self, folder: &str) -> Result<Option<Vec<String>>> {
        let client = self.session.client(self.op).await?;
        match self
            .session
            .answer(self.op, client.list_children(folder))
            .await?
        {
            Ok(nodes) => Ok(Some(nodes)),
            Err(zk::Error::NoNode) => Ok(None),
            Err(error) => Err(translate(self.op, error)),
        }
    }

    /// Deletes a node if it is as it was found. Readers learn that it goes on purpose, if its format has room for that: the mark and the
    /// deletion are one transaction, and the watches of readers tell the mark. Says whether it is gone.
    pub(crate) async fn remove(&self, found: &Found) -> Result<bool> {
        let client = self.session.client(self.op).await?;
        let (path, version) = (found.path.as_str(), found.stat.version);
        let mut writer = client.new_multi_writer();
        let mut last = version;
        if let Some(mark) = mark_withdrawn(&found.data) {
            let added = writer.add_set_data(path, &mark, Some(version));
            added.map_err(|error| translate(self.op, error))?;
            last = version.wrapping_add(1);
        }
        let added = writer.add_delete(path, Some(last));
        added.map_err(|error| translate(self.op, error))?;
        match self
            .session
            .answer(self.op, writer.commit())
            .await?
            .map_err(zk::Error::from)
        {
            Ok(_) | Err(zk::Error::NoNode) => Ok(true),
            Err(zk::Error::BadVersion) => Ok(false),
            Err(error) => Err(translate(self.op, error)),
        }
    }
}

pub(crate) fn changes_too_fast(op: &'static str, record: &RecordId) -> Error {
    Error::new(ErrorKind::Unavailable, op).because(format!(
        "the node of {:?} changed between read and write {MOST_ROUNDS} times in a row",
        record.id
    ))
}
