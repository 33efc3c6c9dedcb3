//! Fault cases over best-effort elections: those that need strict ones are skipped before they touch a server.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use sd_core::port::async_trait;
use sd_core::{Backend, Result, ServiceName};
use sd_testing::faults::{self, FaultFixture};
use sd_testing::{ServerProcess, ServerProgram};

use crate::flawed::{Flaw, Kind, Store};

struct NoServer;

#[async_trait]
impl ServerProgram for NoServer {
    fn name(&self) -> &'static str {
        "none"
    }

    fn command(&self, _data: &Path) -> Command {
        unreachable!("a case that is skipped starts no server")
    }

    async fn ready(&self) -> Result<()> {
        Ok(())
    }
}

struct Elections(Store);

#[async_trait]
impl FaultFixture for Elections {
    type Program = NoServer;

    fn server(&mut self) -> &mut ServerProcess<NoServer> {
        unreachable!("a case that is skipped kills no server")
    }

    fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], 1).into()
    }

    fn backend(&self, _address: SocketAddr) -> Arc<dyn Backend> {
        self.0.client()
    }

    async fn shown(&self, _service: &ServiceName) -> usize {
        0
    }

    async fn stored(&self, _service: &ServiceName) -> Vec<String> {
        Vec::new()
    }
}

#[tokio::test(start_paused = true)]
async fn a_fault_case_that_needs_strict_elections_is_skipped_without_them() {
    let elections = Elections(Store::new(Kind::BestEffort, Flaw::None));
    faults::killed_and_restarted_the_server_still_has_the_candidates(elections).await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "kills no server")]
async fn a_fault_case_that_needs_strict_elections_runs_with_them() {
    let elections = Elections(Store::new(Kind::OnLeases, Flaw::None));
    faults::killed_and_restarted_the_server_still_has_the_candidates(elections).await;
}
