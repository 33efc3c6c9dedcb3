//! What every server is to those that start it.

use std::fmt::Debug;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// How long a server may take to answer a check. One that serves takes milliseconds, unless the machine is very busy.
pub(crate) const CHECKED_WITHIN: Duration = Duration::from_secs(5);

/// One server of this machine: how it is started, where clients reach it, and whether it serves. What it is written in and which
/// protocol it speaks is its own business; a cluster is several of these.
pub trait LocalServer: Debug + Send + Sync + 'static {
    /// For errors: `etcd`.
    fn name(&self) -> &'static str;

    /// The command that runs it in the foreground, with all of its state in the folder `data`.
    fn command(&self, data: &Path) -> Command;

    /// The URL that clients are given.
    fn url(&self) -> String;

    /// The address for clients, for instance as the target of a proxy.
    fn address(&self) -> SocketAddr;

    /// Asks it once whether it does what clients ask of it, and not only listens. Blocks for 5 seconds at most.
    ///
    /// # Errors
    /// Why it does not serve yet.
    fn serving(&self) -> io::Result<()>;
}

#[cfg(test)]
pub(crate) mod tests {
    use std::convert::Infallible;

    use super::*;

    /// One port after the other.
    pub(crate) fn ports_from(first: u16) -> impl FnMut() -> Result<u16, Infallible> {
        let mut ports = first..;
        move || Ok(ports.next().unwrap())
    }

    /// The arguments with which it is started.
    pub(crate) fn line(server: &dyn LocalServer) -> String {
        let command = server.command(Path::new("/data"));
        let words: Vec<_> = command
            .get_args()
            .map(|arg| arg.to_string_lossy())
            .collect();
        words.join(" ")
    }
}
