//! Servers in a process of their own, so that what a client uses is measured alone.

use std::io::{self, BufRead, BufReader, Read, Write as _};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use examples::Hello;
use examples::greeter::GreeterServer;
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use crate::stream_service::StreamsServer;
use crate::{Error, Result};

/// A process that serves the greeter on some ports. Ends when it is dropped, or when this process ends.
#[derive(Debug)]
pub(crate) struct ServerProcess {
    child: Child,
    pub(crate) addresses: Vec<SocketAddr>,
}

impl ServerProcess {
    /// Starts this program again as a server with so many listeners, and waits until they listen.
    pub(crate) fn start(listeners: usize) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(format!("--serve={listeners}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let lines = child.stdout.take().map(BufReader::new);
        let mut process = Self {
            child,
            addresses: Vec::new(),
        };
        for line in lines.into_iter().flat_map(BufRead::lines).take(listeners) {
            process.addresses.push(line?.parse()?);
        }
        if process.addresses.len() == listeners {
            Ok(process)
        } else {
            Err("the server process exited before it listened".into())
        }
    }

    /// Stops the process in its tracks: sockets stay open, nothing answers.
    pub(crate) fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let id = i32::try_from(self.child.id())?;
        let id = Pid::from_raw(id).ok_or("the server process has no id")?;
        Ok(kill_process(id, signal)?)
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the server process does: says where it listens, and serves until its input ends.
pub(crate) fn serve(listeners: usize) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        for nth in 0..listeners {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            writeln!(io::stdout(), "{}", listener.local_addr()?)?;
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            let greeter = GreeterServer::new(Hello::from(format!("server {nth}")));
            tokio::spawn(
                Server::builder()
                    .add_service(greeter)
                    .add_service(StreamsServer)
                    .serve_with_incoming(incoming),
            );
        }
        Ok::<_, Error>(())
    })?;
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
