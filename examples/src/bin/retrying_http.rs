//! How does my HTTP client use every instance of a service, and try another one when a call fails?
//!
//! ```text
//! cargo run -p examples --bin retrying_http --features reqwest
//! cargo run -p examples --bin retrying_http --features reqwest,etcd -- etcd://127.0.0.1:2379/services
//! ```
//!
//! Of three instances, one refuses connections and one answers that it is overloaded. All calls succeed.
#![expect(clippy::print_stdout, reason = "shows what it does")]

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, StatusCode};
use sd_core::balance::LeastRequest;
use sd_core::endpoints::RetryPolicy;
use sd_core::{EndpointCache, Instance};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

const SERVICE: &str = "example-http";

/// How to reach one instance.
#[derive(Debug)]
struct Api {
    http: Client,
    url: String,
}

impl Api {
    async fn greeting(&self) -> reqwest::Result<String> {
        let response = self.http.get(&self.url).send().await?;
        response.error_for_status()?.text().await
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let registry = examples::registry_from_arguments()?;
    let mut servers = JoinSet::new();
    let mut guards = Vec::new();
    for response in [
        Some("200 OK\r\nContent-Length: 5\r\n\r\nHello"),
        Some("503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"),
        None,
    ] {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let instance = Instance::new(SERVICE, listener.local_addr()?)?;
        guards.push(registry.register(instance).await?);
        if let Some(response) = response {
            servers.spawn(serve(listener, response));
        }
    }

    // One value for each instance. reqwest keeps the connections, so they share its client.
    let http = Client::new();
    let apis = EndpointCache::builder(
        registry.subscribe(SERVICE)?,
        move |instance: Arc<Instance>| {
            let url = format!("http://{}/", instance.endpoint());
            std::future::ready(Ok::<_, Infallible>(Api {
                http: http.clone(),
                url,
            }))
        },
    )
    .policy(LeastRequest::new())
    .build()?;

    // This call is safe to execute twice, so it may be tried again whenever it could not be answered.
    let retry = RetryPolicy::new(|error: &reqwest::Error| {
        error.is_connect() || error.status() == Some(StatusCode::SERVICE_UNAVAILABLE)
    })
    .attempts(3)
    .attempt_timeout(Duration::from_secs(1))
    .timeout(Duration::from_secs(5));
    for _ in 0..12 {
        let mut tries = 0;
        let greeting = apis
            .call(&retry, |endpoint| {
                tries += 1;
                async move { endpoint.value().greeting().await }
            })
            .await?;
        println!("{greeting} after {tries} of at most 3 attempts");
    }

    apis.close().await;
    for guard in guards {
        guard.deregister().await?;
    }
    registry.close().await?;
    Ok(())
}

/// An HTTP server that has one answer.
async fn serve(listener: TcpListener, response: &'static str) -> io::Result<()> {
    loop {
        let (mut stream, _) = listener.accept().await?;
        let mut request = [0; 1024];
        // Enough for this example: the request comes in one piece.
        if stream.read(&mut request).await? > 0 {
            let response = format!(
                "HTTP/1.1 {}",
                response.replacen("\r\n", "\r\nConnection: close\r\n", 1)
            );
            stream.write_all(response.as_bytes()).await?;
        }
    }
}
