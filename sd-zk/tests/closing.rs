//! What a registry leaves behind that is closed at a bad moment.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::sync::mpsc::{self, RecvTimeoutError};

use common::{LONG, config_at, eventually, own_server};
use futures_util::FutureExt;
use sd_core::Backend;
use sd_testing::{Direction, Fault, TcpProxy};
use sd_zk::{DEFAULT_PREFIX, ZkBackend};
use server_programs::LocalServer;
use tokio::task::spawn_blocking;

#[tokio::test]
#[ignore = "needs zk: cargo xtask test --backend zk"]
async fn a_registry_that_is_closed_while_it_connects_leaves_no_session() {
    let server = own_server().await;
    let program = server.program().clone();
    let proxy = TcpProxy::start(program.address()).await.unwrap();
    proxy.set(Fault::Hold(Direction::ToClient));
    let config = config_at(&proxy.address().to_string(), DEFAULT_PREFIX);
    let backend = ZkBackend::new(config.with_session_timeout(10 * LONG)).unwrap();
    assert!(backend.check().now_or_never().is_none());
    let has_session = || {
        let told = program.four_letter_word("dump").unwrap();
        told.lines().any(|line| line.starts_with("\t0x"))
    };
    eventually("made", LONG, async || has_session()).await;
    // The answer comes while it is being closed. No time passes meanwhile, however busy the machine is.
    let (go_on, told) = mpsc::channel::<()>();
    let standing_still = spawn_blocking(move || told.recv_timeout(LONG));
    tokio::time::pause();
    let passing = async { proxy.set(Fault::Pass) };
    let (closed, ()) = tokio::join!(backend.close(), passing);
    tokio::time::resume();
    drop(go_on);
    let standing_still = standing_still.await.unwrap();
    assert_eq!(standing_still, Err(RecvTimeoutError::Disconnected));
    closed.unwrap();
    eventually("closed", LONG, async || !has_session()).await;
}
