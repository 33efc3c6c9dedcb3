//! How do I call the instances of a service through tower services, and try another one when a call fails?
//!
//! ```text
//! cargo run -p examples --bin retrying_tower
//! cargo run -p examples --bin retrying_tower --features etcd -- etcd://127.0.0.1:2379/services
//! ```
//!
//! The service turns text into capitals, over a protocol of one line. Of three instances, one is frozen and one hangs up. All calls
//! succeed.
#![expect(clippy::print_stdout, reason = "shows what it does")]

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use sd_core::balance::LeastRequest;
use sd_core::endpoints::RetryPolicy;
use sd_core::{EndpointCache, Instance};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tower::util::BoxCloneSyncService;
use tower::{ServiceExt, service_fn};

const SERVICE: &str = "example-capitals";

/// Any stack of tower layers could be in here.
type Capitals = BoxCloneSyncService<String, String, io::Error>;

/// A service that calls this instance.
fn connect(instance: &Instance) -> Capitals {
    let address = instance.endpoint().to_string();
    BoxCloneSyncService::new(service_fn(move |text: String| {
        let address = address.clone();
        async move {
            let mut stream = BufReader::new(TcpStream::connect(address).await?);
            stream.write_all(format!("{text}\n").as_bytes()).await?;
            let mut answer = String::new();
            if stream.read_line(&mut answer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Ok(answer.trim_end().to_owned())
        }
    }))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let registry = examples::registry_from_arguments()?;
    let mut servers = JoinSet::new();
    let mut guards = Vec::new();
    for behaviour in [Behaviour::Answers, Behaviour::HangsUp, Behaviour::Freezes] {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let instance = Instance::new(SERVICE, listener.local_addr()?)?;
        guards.push(registry.register(instance).await?);
        servers.spawn(serve(listener, behaviour));
    }

    let services =
        EndpointCache::builder(registry.subscribe(SERVICE)?, |instance: Arc<Instance>| {
            std::future::ready(Ok::<_, Infallible>(connect(&instance)))
        })
        .policy(LeastRequest::new())
        .build()?;

    // Turning text into capitals twice does no harm: every error may be followed by another attempt.
    let retry = RetryPolicy::new(|_: &io::Error| true)
        .attempts(3)
        .attempt_timeout(Duration::from_millis(200))
        .timeout(Duration::from_secs(5));
    for text in ["discover", "balance", "retry", "elect"] {
        let answer = services
            .call(&retry, |endpoint| {
                let service = endpoint.value().as_ref().clone();
                service.oneshot(text.to_owned())
            })
            .await?;
        println!("{text} became {answer}");
        if answer != text.to_uppercase() {
            return Err(format!("{answer} is not {text} in capitals").into());
        }
    }

    services.close().await;
    for guard in guards {
        guard.deregister().await?;
    }
    registry.close().await?;
    Ok(())
}

#[derive(Clone, Copy, Debug)]
enum Behaviour {
    Answers,
    HangsUp,
    Freezes,
}

async fn serve(listener: TcpListener, behaviour: Behaviour) -> io::Result<()> {
    let mut frozen = Vec::new();
    loop {
        let (stream, _) = listener.accept().await?;
        match behaviour {
            Behaviour::Answers => {
                let mut stream = BufReader::new(stream);
                let mut line = String::new();
                stream.read_line(&mut line).await?;
                stream.write_all(line.to_uppercase().as_bytes()).await?;
            }
            Behaviour::HangsUp => drop(stream),
            Behaviour::Freezes => frozen.push(stream),
        }
    }
}
