//! The addresses of an endpoint. A name is looked up for each connection, since it may move, and each of its addresses is tried.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::net::lookup_host;
use tokio::time::timeout;
use tonic::transport::Uri;

/// Addresses of one name that are tried.
const MOST_ADDRESSES: usize = 16;

type Found = io::Result<Vec<SocketAddr>>;
type Lookup = dyn Fn(String, u16) -> BoxFuture<'static, Found> + Send + Sync;

/// How names are looked up.
#[derive(Clone)]
pub(crate) struct Addresses(Arc<Lookup>);

/// Where an endpoint can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reached {
    /// The endpoint, with an address in place of its name.
    pub(crate) url: Uri,
    /// The name, if there was one.
    pub(crate) name: Option<String>,
}

impl Addresses {
    /// As the operating system finds them.
    pub(crate) fn of_system() -> Self {
        Self::found_by(|name, port| {
            Box::pin(async move { Ok(lookup_host((name, port)).await?.collect()) })
        })
    }

    pub(crate) fn found_by(
        lookup: impl Fn(String, u16) -> BoxFuture<'static, Found> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(lookup))
    }

    /// Where the endpoint at `url` can be reached now. An error says why its name has no address.
    pub(crate) async fn of(&self, url: &Uri, limit: Duration) -> Result<Vec<Reached>, String> {
        let host = url.host().unwrap_or_default();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if bare.parse::<IpAddr>().is_ok() {
            return Ok(vec![Reached {
                url: url.clone(),
                name: None,
            }]);
        }
        let port = url.port_u16().unwrap_or_default();
        let looking = timeout(limit, (self.0)(host.to_owned(), port)).await;
        let found = looking
            .map_err(|_| format!("the name was not looked up within {limit:?}"))?
            .map_err(|error| format!("the name cannot be looked up: {error}"))?;
        let mut reached: Vec<Reached> = Vec::new();
        for address in found {
            let url = format!("{}://{address}", url.scheme_str().unwrap_or("http"));
            let url: Uri = url.parse().map_err(|error| format!("{url}: {error}"))?;
            if reached.iter().all(|other| other.url != url) && reached.len() < MOST_ADDRESSES {
                reached.push(Reached {
                    url,
                    name: Some(host.to_owned()),
                });
            }
        }
        if reached.is_empty() {
            return Err("the name has no address".to_owned());
        }
        Ok(reached)
    }
}

impl fmt::Debug for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Addresses")
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use futures_util::future::{pending, ready};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(2);

    async fn of(addresses: &Addresses, url: &str) -> Result<Vec<String>, String> {
        let found = addresses.of(&url.parse().unwrap(), LIMIT).await?;
        Ok(found.iter().map(|found| found.url.to_string()).collect())
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_is_not_looked_up_and_each_of_a_name_is_named_once() {
        let told = ["10.0.0.1:2379", "[::1]:2379", "10.0.0.1:2379"];
        let told = told.map(|address| address.parse().unwrap()).to_vec();
        let addresses = Addresses::found_by(move |_, _| ready(Ok(told.clone())).boxed());
        let found = of(&addresses, "https://[::1]:1").await.unwrap();
        assert_eq!(found, ["https://[::1]:1/"]);
        let found = of(&addresses, "https://etcd.example:2379").await.unwrap();
        assert_eq!(found, ["https://10.0.0.1:2379/", "https://[::1]:2379/"]);
        let named = addresses.of(&"http://h:1".parse().unwrap(), LIMIT).await;
        assert_eq!(named.unwrap()[0].name.as_deref(), Some("h"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_without_an_address_says_why() {
        for (lookup, why) in [
            (
                Addresses::found_by(|_, _| pending().boxed()),
                "not looked up within 2s",
            ),
            (
                Addresses::found_by(|_, _| ready(Err(io::Error::other("no such host"))).boxed()),
                "no such host",
            ),
            (
                Addresses::found_by(|_, _| ready(Ok(Vec::new())).boxed()),
                "has no address",
            ),
        ] {
            let error = of(&lookup, "http://etcd.example:2379").await.unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
