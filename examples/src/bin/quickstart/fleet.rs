//! Where the servers run, and what can be done to them.

use std::sync::Arc;
use std::time::SystemTime;

use sd_core::Registry;
use sd_core::memory::Memory;

use crate::Result;
use crate::process::ServerProcess;
use crate::thread::ServerThread;

#[derive(Clone)]
pub(crate) enum Fleet {
    /// Each in a thread of this process, with this embedded registry.
    Threads(Memory),
    /// Each in a process of its own, with the registry at this URL.
    Processes(String),
}

/// A server of the fleet.
pub(crate) struct Running {
    /// When it began to register.
    pub(crate) began: SystemTime,
    server: Server,
}

enum Server {
    Thread(ServerThread),
    Process(ServerProcess),
}

impl Fleet {
    /// A client of the registry, once the registry answers. Refuses one in which the story cannot come true: servers register, and workers
    /// are elected.
    pub(crate) async fn registry(&self) -> Result<Registry> {
        let registry = match self {
            Self::Threads(memory) => memory.connect(),
            Self::Processes(url) => examples::registry(Some(url))?,
        };
        if Arc::clone(registry.backend()).registrar().is_none() {
            return Err(can_only_be_read(registry.backend().name()).into());
        }
        if Arc::clone(registry.backend()).elector().is_none() {
            return Err(has_no_elections(registry.backend().name()).into());
        }
        registry.services().await?;
        Ok(registry)
    }

    /// A service name that no other program uses there.
    pub(crate) fn service(&self) -> String {
        match self {
            Self::Threads(_) => "greeter".to_owned(),
            Self::Processes(_) => format!("greeter-{}", std::process::id()),
        }
    }

    /// Starts a server. Returns when it listens and is about to register.
    pub(crate) async fn start(&self, service: &str, name: &str) -> Result<Running> {
        let (began, server) = match self {
            Self::Threads(memory) => {
                let (began, thread) = ServerThread::start(memory, service, name).await?;
                (began, Server::Thread(thread))
            }
            Self::Processes(url) => {
                let (began, process) = ServerProcess::start(url, service, name).await?;
                (began, Server::Process(process))
            }
        };
        Ok(Running { began, server })
    }
}

impl Running {
    /// Asks it to leave in order, and waits until it has.
    pub(crate) async fn drain(self) -> Result<()> {
        match self.server {
            Server::Thread(thread) => thread.drain().await,
            Server::Process(process) => process.drain().await,
        }
    }

    /// Ends it without notice.
    pub(crate) async fn kill(self) -> Result<()> {
        match self.server {
            Server::Thread(thread) => thread.kill().await,
            Server::Process(process) => process.kill().await,
        }
    }

    /// Stops it from doing anything, while its sockets stay open.
    pub(crate) async fn freeze(&mut self) -> Result<()> {
        match &mut self.server {
            Server::Thread(thread) => thread.freeze().await,
            Server::Process(process) => process.freeze(),
        }
    }

    /// Lets it go on.
    pub(crate) fn thaw(&mut self) -> Result<()> {
        match &mut self.server {
            Server::Thread(thread) => {
                thread.thaw();
                Ok(())
            }
            Server::Process(process) => process.thaw(),
        }
    }
}

fn can_only_be_read(backend: &str) -> String {
    let hint = match backend {
        "dns" => {
            ". To see calls balanced over a name of DNS: cargo run -p examples --bin headless_grpc --features dns"
        }
        _ => "",
    };
    format!(
        "servers register here, and this registry ({backend}) can only be read: name one that has a server{hint}"
    )
}

fn has_no_elections(backend: &str) -> String {
    let hint = match backend {
        "cluster" => {
            ". To see a module of isp-config-service: cargo run -p examples --bin isp_module --features cluster"
        }
        _ => "",
    };
    format!(
        "workers are elected here, and this registry ({backend}) has no elections: name another one{hint}"
    )
}
