//! Services that tests start, and waiting for what happens at them.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use sd_cluster::server::{Builder, ConfigService, KnownModule};
use sd_testing::LONG;
use tokio::time::{sleep, timeout};

/// A service in memory, and where it is.
pub(crate) async fn started(builder: Builder) -> (ConfigService, SocketAddr) {
    let service = builder.start().await.unwrap();
    let address = service
        .listen("127.0.0.1:0".parse().unwrap())
        .await
        .unwrap();
    (service, address)
}

/// One that takes long to miss a client, because those of these tests answer no ping.
pub(crate) async fn service() -> (ConfigService, SocketAddr) {
    started(ConfigService::builder().ping_every(Duration::from_secs(60))).await
}

pub(crate) async fn within<T>(what: &str, wait: impl Future<Output = T>) -> T {
    let done = timeout(LONG, wait).await;
    done.unwrap_or_else(|_| panic!("took too long: {what}"))
}

/// Waits until a module is as wished. What changes at the service tells a test nothing, so it is looked at.
pub(crate) async fn until(
    service: &ConfigService,
    module: &str,
    is: impl Fn(&KnownModule) -> bool,
) -> KnownModule {
    let looking = async {
        loop {
            match service.module(module).await {
                Ok(known) if is(&known) => return known,
                _ => sleep(Duration::from_millis(5)).await,
            }
        }
    };
    within(module, looking).await
}

pub(crate) async fn until_gone(service: &ConfigService, module: &str) {
    let gone = async {
        while service
            .module(module)
            .await
            .is_ok_and(|known| known.connections > 0)
        {
            sleep(Duration::from_millis(5)).await;
        }
    };
    within(module, gone).await;
}
