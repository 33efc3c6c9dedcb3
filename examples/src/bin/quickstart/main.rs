//! What this workspace does, in less than twenty seconds. A balanced gRPC channel keeps every call alive while servers come, go,
//! die and fall silent. Then one of two workers is elected, freezes, is replaced, and can do no harm when it wakes.
//!
//! ```text
//! cargo run -p examples --bin quickstart
//! cargo run -p examples --bin quickstart --features etcd -- --registry etcd://127.0.0.1:2379/services
//! cargo run -p examples --bin quickstart --features consul -- --registry 'consul://127.0.0.1:8500?lock_delay=1s'
//! cargo run -p examples --bin quickstart --features redis -- --registry redis://127.0.0.1:6379
//! cargo run -p examples --bin quickstart --features zk -- --registry 'zk://127.0.0.1:2181?session_timeout=8s'
//! ```
//!
//! The first command needs nothing: the registry is embedded, and each server has a thread of its own. The others do the same
//! with a real etcd, Consul, Redis or ZooKeeper: each server is a process of its own, and gets a real kill -9 and a real SIGSTOP. The
//! workers are always threads, and are frozen by blocking them. Consul is slow to replace a lost leader: it takes up to 20 s, twice
//! its shortest time-to-live, and then the lock-delay, 15 s by default. On ZooKeeper a server is kept for as long as its session,
//! whatever time-to-live it asks for, so the URL says how long.
//! A registry that can only be read, such as DNS, will not do, since the servers register: `headless_grpc` and `headless_http` show
//! calls over names of DNS. Nor will one without elections, such as isp-config-service: `isp_module` shows a module there.
//!
//! The program shows a table of the channel's endpoints and tells what happens to them. The last lines say how many calls there
//! were, how many failed, and how many were sent again to another endpoint. The exit status is 0 only if none failed, and if
//! the write of the frozen leader was refused.
//!
//! Where to read on: `story.rs` has the events, in order. `calls.rs` is the client, `server.rs` the server, and `worker.rs`
//! begins with what an elected worker does: yours would look like these three. The rest is stage machinery: `fleet.rs` starts
//! servers, as a `thread.rs` or a `process.rs`, and `screen.rs` draws the table.
#![expect(clippy::print_stdout, reason = "talks to its user")]

mod calls;
mod fleet;
mod process;
mod screen;
mod server;
mod story;
mod thread;
mod worker;

use std::error::Error;
use std::process::ExitCode;

use sd_core::memory::Memory;

use crate::fleet::Fleet;

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        [] => story::tell(Fleet::Threads(Memory::new())).await,
        ["--registry", url] => story::tell(Fleet::Processes(url.to_owned())).await,
        [process::SERVE, url, service, name] => process::serve(url, service, name).await,
        _ => Err("usage: quickstart [--registry URL]".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("quickstart: {}", chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

/// An error with its causes, on one line.
fn chain(error: &(dyn Error + 'static)) -> String {
    match error.source() {
        None => error.to_string(),
        Some(cause) => format!("{error}: {}", chain(cause)),
    }
}
