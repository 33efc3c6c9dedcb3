//! From an instance to bytes: the connector, and TLS over it.

use std::io;
use std::sync::Arc;

use http::uri::Scheme;
use sd_core::Instance;

use crate::connector::{BoxedIo, SharedConnector};
#[cfg(feature = "tls")]
use crate::tls::Tls;

/// How connections are opened.
#[derive(Debug)]
pub(crate) struct Transport {
    pub(crate) connector: SharedConnector,
    /// What calls say they run on.
    pub(crate) scheme: Scheme,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<Tls>,
}

impl Transport {
    pub(crate) async fn connect(&self, instance: Arc<Instance>) -> io::Result<BoxedIo> {
        let io = self.connector.0.connect(Arc::clone(&instance)).await?;
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            return tls.connect(&instance, io).await;
        }
        Ok(io)
    }
}
