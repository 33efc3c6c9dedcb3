//! One record at the server: verified, updated, proved to be ours.

use async_trait::async_trait;
use sd_backend::Record;
use sd_core::port::{Liveness, Registration, Renewed};
use sd_core::{Error, ErrorKind, Instance, RecordId, Result};
use zookeeper_client as zk;

use crate::client::error::translate;
use crate::client::session::Session;
use crate::codec::Layout;
use crate::writing::records::{Found, MOST_ROUNDS, Records, changes_too_fast};

/// A record in one node of one session.
#[derive(Debug)]
pub(crate) struct ZkRegistration {
    pub(crate) session: Session,
    pub(crate) layout: Layout,
    pub(crate) record: RecordId,
    pub(crate) node: Node,
}

/// The node that was made for a record, and no other one under the same path.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) path: String,
    /// The number of the change that made it.
    pub(crate) czxid: i64,
}

impl ZkRegistration {
    /// Reads our record, if it is that.
    async fn ours(&self, op: &'static str) -> Result<Found> {
        let records = Records {
            session: &self.session,
            layout: &self.layout,
            op,
        };
        let Some(found) = records.read(&self.record, &self.node.path).await? else {
            return Err(self.deleted(op));
        };
        if found.stat.czxid != self.node.czxid {
            return Err(Error::new(ErrorKind::Conflict, op)
                .because(format!("{} was deleted and made again", self.node.path)));
        }
        Ok(found)
    }

    fn deleted(&self, op: &'static str) -> Error {
        Error::new(ErrorKind::NotFound, op).because(format!("{} was deleted", self.node.path))
    }
}

#[async_trait]
impl Registration for ZkRegistration {
    fn liveness(&self) -> Liveness {
        Liveness::Session {
            ttl: self.session.timeout(),
        }
    }

    async fn renew(&self) -> Result<Renewed> {
        const OP: &str = "zk: renew";
        let found = self.ours(OP).await?;
        match found.stored {
            Ok(stored)
                if self.layout.says_run()
                    && stored.instance().incarnation() != self.record.incarnation =>
            {
                Err(Error::new(ErrorKind::NotFound, OP).because(format!(
                    "{} was overwritten with another record",
                    self.node.path
                )))
            }
            // Readers do not see it any more. To register again takes the mark off.
            Ok(Record::Withdrawn(_)) => Err(Error::new(ErrorKind::NotFound, OP)
                .because(format!("{} was marked as withdrawn", self.node.path))),
            Ok(stored) => {
                let said = stored.instance().overridden();
                Ok(Renewed::new(self.liveness()).with_override(said))
            }
            // To register again writes over it.
            Err(reason) => Err(Error::new(ErrorKind::NotFound, OP).because(format!(
                "{} holds something that is not a record ({reason})",
                self.node.path
            ))),
        }
    }

    async fn update(&self, record: &Instance) -> Result<()> {
        const OP: &str = "zk: update";
        if record.record_id() != self.record {
            return Err(Error::invalid_input(
                OP,
                "service, id and incarnation cannot change: register another instance",
            ));
        }
        let client = self.session.client(OP).await?;
        for _ in 0..MOST_ROUNDS {
            let found = self.ours(OP).await?;
            let data = self.layout.update(OP, &found.data, record)?;
            if data == found.data {
                return Ok(());
            }
            let version = Some(found.stat.version);
            let writing = client.set_data(&self.node.path, &data, version);
            match self.session.answer(OP, writing).await? {
                Ok(_) => return Ok(()),
                Err(zk::Error::BadVersion) => {}
                Err(zk::Error::NoNode) => return Err(self.deleted(OP)),
                Err(error) => return Err(translate(OP, error)),
            }
        }
        Err(changes_too_fast(OP, &self.record))
    }

    async fn lost(&self) -> Error {
        self.session.ended("zk: keep record").await
    }
}
