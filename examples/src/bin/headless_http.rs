//! How does my HTTP client use every address of a DNS name, and another one when a call fails?
//!
//! ```text
//! cargo run -p examples --bin headless_http --features dns,reqwest
//! ```
//!
//! The name has two addresses, of which one refuses connections. All calls succeed.
#![expect(clippy::print_stdout, reason = "shows what it does")]

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use examples::Headless;
use reqwest::Client;
use sd_core::endpoints::RetryPolicy;
use sd_core::{EndpointCache, Instance};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (service, mut listeners) = Headless::start().await?;
    let refusing = listeners.pop();
    let mut servers = JoinSet::new();
    for listener in listeners {
        servers.spawn(serve(listener));
    }
    drop(refusing);

    // In your cluster: sd_any::connect("dns:///prod.svc.cluster.local.?port=8080")
    let registry = sd_any::connect(&service.url())?;
    // One URL for each address. reqwest keeps the connections, so they share its client.
    let urls = EndpointCache::builder(registry.subscribe("greeter")?, |one: Arc<Instance>| {
        let url = format!("http://{}/", one.endpoint());
        std::future::ready(Ok::<_, Infallible>(url))
    })
    .build()?;

    // Nothing was sent where the connection failed, so that any call may be tried again.
    let retry = RetryPolicy::new(reqwest::Error::is_connect)
        .attempts(3)
        .timeout(Duration::from_secs(5));
    let http = Client::new();
    for _ in 0..6 {
        let answer = urls
            .call(&retry, |endpoint| {
                let (http, url) = (http.clone(), Arc::clone(endpoint.value()));
                async move { http.get(url.as_str()).send().await?.text().await }
            })
            .await?;
        println!("{answer}");
    }

    urls.close().await;
    registry.close().await?;
    Ok(())
}

/// An HTTP server that tells its address.
async fn serve(listener: TcpListener) -> io::Result<()> {
    let text = format!("Hello from {}", listener.local_addr()?);
    let length = text.len();
    let response =
        format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{text}");
    loop {
        let (mut stream, _) = listener.accept().await?;
        // Enough for this example: the request comes in one piece.
        if stream.read(&mut [0; 1024]).await? > 0 {
            stream.write_all(response.as_bytes()).await?;
        }
    }
}
