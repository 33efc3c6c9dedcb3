//! What this workspace does, in about fifteen seconds: a balanced gRPC channel keeps every call alive while servers come, go,
//! die and fall silent; and of two workers one is elected, freezes, is replaced, and can do no harm when it wakes.
//!
//! ```text
//! cargo run -p examples --bin quickstart
//! cargo run -p examples --bin quickstart --features etcd -- --registry etcd://127.0.0.1:2379/services
//! cargo run -p examples --bin quickstart --features consul -- --registry 'consul://127.0.0.1:8500?lock_delay=1s'
//! ```
//!
//! The first line needs nothing: the registry is embedded and each server has a thread of its own. The others do the same
//! through a real etcd or Consul, with each server in a process of its own, a real kill -9 and a real SIGSTOP. The workers are
//! threads in all of them, and are frozen by blocking them. Consul takes its time to replace a leader that is lost: twice the
//! shortest time-to-live that it grants is 20 s, and then comes the lock-delay, 15 s by default.
//!
//! It shows a table of the channel's endpoints and tells what happens to them. The last lines say how many calls there were,
//! how many failed and how many were sent again to another endpoint. The exit status is 0 only if none failed, and if the write
//! of the leader that froze was refused.
//!
//! Where to read on: `story.rs` is what happens, in order. `calls.rs` is the client, `server.rs` the server, `worker.rs` begins
//! with what an elected worker does, and all three are what yours would look like. The rest is stage machinery: `fleet.rs` starts servers, as a `thread.rs` or a `process.rs`, and
//! `screen.rs` draws the table.
#![expect(clippy::print_stdout, reason = "talks to whoever runs it")]

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
