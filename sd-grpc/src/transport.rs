//! From an instance to bytes: the connector, and TLS over it.

use std::io;
use std::sync::Arc;

use sd_core::Instance;

use crate::connector::{BoxedIo, SharedConnector};
#[cfg(feature = "tls")]
use crate::tls::Tls;

/// How connections are opened.
#[derive(Debug)]
pub(crate) struct Transport {
    pub(crate) connector: SharedConnector,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<Tls>,
}

impl Transport {
    /// Whether TLS is spoken.
    pub(crate) fn is_tls(&self) -> bool {
        #[cfg(feature = "tls")]
        let tls = self.tls.is_some();
        #[cfg(not(feature = "tls"))]
        let tls = false;
        tls
    }

    pub(crate) async fn connect(&self, instance: Arc<Instance>) -> io::Result<BoxedIo> {
        let io = self.connector.0.connect(Arc::clone(&instance)).await?;
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            return tls.connect(&instance, io).await;
        }
        Ok(io)
    }
}
