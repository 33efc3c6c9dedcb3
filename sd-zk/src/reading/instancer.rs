//! Reading: the services, one service once, and the feed of one service.

use async_trait::async_trait;
use sd_core::{Error, ErrorKind, Instancer, Result, ServiceName, Snapshot, Watcher};

use crate::backend::ZkBackend;
use crate::client::session::Session;
use crate::reading::full_read::{read_service, read_services};

#[async_trait]
impl Instancer for ZkBackend {
    async fn services(&self) -> Result<Vec<ServiceName>> {
        const OP: &str = "zk: list services";
        let read = async |session| read_services(&session, &self.layout, OP).await;
        self.client.read(OP, read).await
    }

    /// Other projects' records cannot be marked.
    fn tells_withdrawals(&self) -> bool {
        self.layout.tells_withdrawals()
    }

    async fn list(&self, service: &ServiceName) -> Result<Snapshot> {
        const OP: &str = "zk: list service";
        let as_of = self.clock.now();
        let read = async |session: Session| {
            let set = read_service(&session, &self.layout, OP, service).await?;
            Ok((set, session.id()))
        };
        let (mut set, session) = self.client.read(OP, read).await?;
        Ok(set.snapshot(session, as_of))
    }

    async fn watch(
        &self,
        _service: &ServiceName,
        _known: Option<&Snapshot>,
    ) -> Result<Box<dyn Watcher>> {
        Err(Error::new(ErrorKind::Unsupported, "zk: watch service"))
    }
}
