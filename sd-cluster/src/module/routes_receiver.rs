//! What receives the routes.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use sd_core::{Printable, brief, panics};
use tokio::time::timeout;

use crate::protocol::declaration::RoutingConfig;

/// How long a receiver of routes may take by default.
pub const DEFAULT_ROUTES_TIMEOUT: Duration = Duration::from_secs(5);

const OP: &str = "cluster: receive routes";

type Handler = dyn Fn(Arc<RoutingConfig>) -> BoxFuture<'static, Result<(), String>> + Send + Sync;

/// What receives all modules that are ready, each time that one comes, goes or changes. A cheap clone.
///
/// ```
/// use sd_cluster::RoutesReceiver;
///
/// let receiver = RoutesReceiver::new(async |routes| {
///     for module in routes.iter() {
///         println!("{} {}", module.module_name, module.version);
///     }
///     Ok::<(), std::io::Error>(())
/// });
/// ```
#[derive(Clone)]
pub struct RoutesReceiver {
    handler: Arc<Handler>,
    timeout: Duration,
}

impl RoutesReceiver {
    /// Has `receive` called with the newest routes, one call at a time. A reader that is slow skips those between. When it fails, takes
    /// longer than [`DEFAULT_ROUTES_TIMEOUT`] or panics, that is logged, and the next routes are handed over as usual.
    pub fn new<R, E>(receive: impl Fn(Arc<RoutingConfig>) -> R + Send + Sync + 'static) -> Self
    where
        R: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Box<dyn StdError + Send + Sync>> + 'static,
    {
        let handler = move |routes| -> BoxFuture<'static, Result<(), String>> {
            let receiving = receive(routes);
            Box::pin(async move {
                let done = receiving.await.map_err(Into::into);
                done.map_err(|error| brief(Printable(&error.to_string())))
            })
        };
        Self {
            handler: Arc::new(handler),
            timeout: DEFAULT_ROUTES_TIMEOUT,
        }
    }

    /// Limits how long one call may take. Its future is dropped then. Default: [`DEFAULT_ROUTES_TIMEOUT`].
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Hands routes over.
    ///
    /// # Errors
    /// Why they were not received.
    pub(crate) async fn receive(&self, routes: Arc<RoutingConfig>) -> Result<(), String> {
        let handling = async { Ok((self.handler)(routes).await) };
        match timeout(self.timeout, panics::caught(OP, handling)).await {
            Ok(Ok(received)) => received,
            Ok(Err(panicked)) => Err(panicked.report().to_string()),
            Err(_) => Err(format!("they were not received within {:?}", self.timeout)),
        }
    }
}

impl fmt::Debug for RoutesReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RoutesReceiver")
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_receiver_that_fails_panics_or_hangs_is_told_and_asked_again() {
        let receiver = RoutesReceiver::new(|routes: Arc<RoutingConfig>| async move {
            match routes.len() {
                0 => Ok(()),
                1 => Err("one\n"),
                2 => panic!("two"),
                _ => std::future::pending().await,
            }
        });
        let receive = async |count| {
            let routes = vec![crate::BackendDeclaration::default(); count];
            receiver.receive(Arc::new(routes)).await
        };
        assert_eq!(receive(1).await, Err("one\\n".to_owned()));
        assert!(receive(2).await.unwrap_err().contains("panicked: two"));
        assert!(receive(3).await.unwrap_err().contains("within 5s"));
        assert_eq!(receive(0).await, Ok(()));
    }
}
