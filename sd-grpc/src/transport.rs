//! From an instance to bytes: the connector, and TLS over it.

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use http::uri::{Authority, Scheme};
use sd_core::{Address, Instance};
use tracing::warn;

use crate::connector::{BoxedIo, SharedConnector};
#[cfg(feature = "tls")]
use crate::tls::Tls;

/// How connections are opened, and what calls on them say where they go.
#[derive(Debug)]
pub(crate) struct Transport {
    pub(crate) connector: SharedConnector,
    /// What calls say they run on.
    pub(crate) scheme: Scheme,
    /// What calls carry instead of the endpoint's address.
    pub(crate) origin: Option<(Scheme, Authority)>,
    pub(crate) authority_of: Option<AuthorityOf>,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<Tls>,
}

/// Says how an instance is called.
type Naming = dyn Fn(&Instance) -> Option<Authority> + Send + Sync;

/// A function of the user's.
#[derive(Clone)]
pub(crate) struct AuthorityOf(pub(crate) Arc<Naming>);

impl AuthorityOf {
    /// A panic in there must not end the channel.
    fn ask(&self, instance: &Instance) -> Option<Authority> {
        let asked = catch_unwind(AssertUnwindSafe(|| (self.0)(instance)));
        asked.unwrap_or_else(|_| {
            warn!(id = %instance.id(), "`authority_of` panicked: the endpoint's own is used");
            None
        })
    }
}

impl fmt::Debug for AuthorityOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthorityOf")
    }
}

impl Transport {
    pub(crate) async fn connect(&self, instance: Arc<Instance>) -> io::Result<BoxedIo> {
        let io = self.connector.0.connect(Arc::clone(&instance)).await?;
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            let own = self.own_authority(&instance);
            return tls.connect(&instance, own.as_ref(), io).await;
        }
        Ok(io)
    }

    /// Whether instances can have authorities that are not their addresses.
    pub(crate) fn names_instances(&self) -> bool {
        self.authority_of.is_some()
    }

    fn own_authority(&self, instance: &Instance) -> Option<Authority> {
        self.authority_of.as_ref()?.ask(instance)
    }

    /// The scheme and authority that calls to it carry.
    pub(crate) fn origin(&self, instance: &Instance) -> (Scheme, Authority) {
        let (scheme, of_all) = match &self.origin {
            Some((scheme, authority)) => (scheme, Some(authority)),
            None => (&self.scheme, None),
        };
        let own = self.own_authority(instance);
        let authority = own.or_else(|| of_all.cloned());
        let address = || match instance.endpoint().address() {
            Address::Tcp { .. } => without_zone(&instance.endpoint().to_string()).parse().ok(),
            // What gRPC sends where there is no host.
            _ => None,
        };
        let authority = authority.or_else(address);
        let localhost = || Authority::from_static("localhost");
        (scheme.clone(), authority.unwrap_or_else(localhost))
    }
}

/// The zone of an IPv6 address means something on this machine only (RFC 6874).
fn without_zone(authority: &str) -> String {
    match (authority.split_once('%'), authority.rsplit_once(']')) {
        (Some((address, _)), Some((_, port))) => format!("{address}]{port}"),
        _ => authority.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::without_zone;

    #[test]
    fn an_authority_has_no_zone() {
        assert_eq!(without_zone("[fe80::1%eth0]:443"), "[fe80::1]:443");
        assert_eq!(without_zone("[fe80::1]:443"), "[fe80::1]:443");
        assert_eq!(without_zone("a.example:443"), "a.example:443");
    }
}
