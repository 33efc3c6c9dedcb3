//! What a module declares when it is ready, as others are told of it.

use bytes::Bytes;
use sd_core::{Printable, brief};

use crate::protocol::address::AddressConfiguration;
use crate::protocol::declaration::{BackendDeclaration, MetricsAutodiscovery};

/// Transports that isp-kit knows. An empty one is the first.
const TRANSPORTS: [&str; 3] = ["grpc", "http", "empty"];
/// Serves nothing, so that it needs no address.
const SERVES_NOTHING: &str = "empty";

/// An instance that is ready.
#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) declaration: BackendDeclaration,
    pub(crate) metrics: Option<MetricsAutodiscovery>,
    /// Its entry in lists of hosts. None if it serves nothing.
    host: Option<Bytes>,
    /// Its entry in the list of routes.
    pub(super) route: Bytes,
    /// Bytes of all that was declared.
    bytes: usize,
}

impl Backend {
    /// Takes what a connection of `module` declares, if it has at most so many bytes.
    ///
    /// isp-config-service stores what it gets. Host and port are one text there, so that one IPv6 address ends all lists for everyone,
    /// and lists of hosts and routes tell of different modules where the declaration names another one than the connection. Both are
    /// refused here, or understood.
    ///
    /// # Errors
    /// No reader could use it.
    pub(super) fn new(
        module: &str,
        mut declaration: BackendDeclaration,
        most_bytes: usize,
    ) -> Result<Self, String> {
        if declaration.module_name != module {
            return Err(format!(
                "the module {} was declared on a connection of {}: name one",
                brief(Printable(&declaration.module_name)),
                brief(Printable(module))
            ));
        }
        if declaration.transport.is_empty() {
            TRANSPORTS[0].clone_into(&mut declaration.transport);
        }
        if !TRANSPORTS.contains(&&*declaration.transport) {
            return Err(format!(
                "the transport {} is none of {}",
                brief(Printable(&declaration.transport)),
                TRANSPORTS.join(", ")
            ));
        }
        if declaration.transport == TRANSPORTS[0] {
            for endpoint in &mut declaration.endpoints {
                if endpoint.http_method.is_empty() {
                    "POST".clone_into(&mut endpoint.http_method);
                }
            }
        }
        // Without brackets, as readers in Go put host and port together again.
        let address = declaration.address.endpoint();
        let address = address.map(|endpoint| AddressConfiguration::of(&endpoint));
        let is_served = match address {
            Ok(Some(address)) => {
                declaration.address = address;
                true
            }
            Ok(None) => false,
            Err(_) if declaration.transport == SERVES_NOTHING => false,
            Err(error) => {
                let why = error.report();
                return Err(format!("its address cannot be dialled: {why}"));
            }
        };
        let json = |value: serde_json::Result<Vec<u8>>| {
            value.map(Bytes::from).map_err(|error| error.to_string())
        };
        let bytes = json(serde_json::to_vec(&declaration))?.len();
        if bytes > most_bytes {
            return Err(format!(
                "the declaration has {bytes} bytes, and the service takes {most_bytes}: declare fewer endpoints"
            ));
        }
        let metrics = declaration.metrics_autodiscovery.take();
        let host = json(serde_json::to_vec(&declaration.address))?;
        let route = json(serde_json::to_vec(&declaration))?;
        Ok(Self {
            declaration,
            metrics,
            host: is_served.then_some(host),
            route,
            bytes,
        })
    }

    /// All that was declared.
    pub(super) fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string(&BackendDeclaration {
            metrics_autodiscovery: self.metrics.clone(),
            ..self.declaration.clone()
        })
    }

    /// What it counts of the room that all declarations have, with the comma before it. Its metrics are in no list, but in memory and in
    /// the file.
    pub(super) fn declared_bytes(&self) -> usize {
        self.bytes + 1
    }

    pub(super) fn host(&self) -> Option<&[u8]> {
        self.host.as_deref()
    }
}
