//! What every server is to those that start it.

use std::fmt::Debug;
use std::fs;
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

    /// Writes what it reads at its start into the folder `data`, which exists. Called before each start. A file that is there belongs to
    /// the server, which may have changed it, and stays.
    ///
    /// # Errors
    /// A file cannot be written.
    fn prepare(&self, _data: &Path) -> io::Result<()> {
        Ok(())
    }

    /// The command that runs it in the foreground, with all of its state in the folder `data`.
    fn command(&self, data: &Path) -> Command;

    /// What clients are given: its URL, or `host:port` where its clients know no other.
    fn url(&self) -> String;

    /// The address for clients, for instance as the target of a proxy.
    fn address(&self) -> SocketAddr;

    /// Asks it once whether it does what clients ask of it, and not only listens. Blocks for 5 seconds at most.
    ///
    /// # Errors
    /// Why it does not serve yet.
    fn serving(&self) -> io::Result<()>;
}

/// Writes a file for [`LocalServer::prepare`], unless it is there.
pub(crate) fn write_once(file: &Path, text: &str) -> io::Result<()> {
    if file.exists() {
        return Ok(());
    }
    fs::write(file, text)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", file.display())))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// One port after the other.
    pub(crate) fn ports_from(first: u16) -> impl FnMut() -> Result<u16, Infallible> {
        let mut ports = first..;
        move || Ok(ports.next().unwrap())
    }

    /// What it writes into this file before it is started.
    pub(crate) fn prepared(server: &dyn LocalServer, file: &str) -> String {
        static FOLDERS: AtomicUsize = AtomicUsize::new(0);
        let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
        let name = format!("server-programs-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir(&folder).unwrap();
        server.prepare(&folder).unwrap();
        let text = fs::read_to_string(folder.join(file)).unwrap();
        fs::remove_dir_all(folder).unwrap();
        text
    }

    #[test]
    fn a_file_that_the_server_has_changed_stays() {
        let file = std::env::temp_dir().join(format!("server-programs-{}", std::process::id()));
        write_once(&file, "ours").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "ours");
        fs::write(&file, "the server's").unwrap();
        write_once(&file, "ours").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "the server's");
        fs::remove_file(file).unwrap();
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named() {
        let error = write_once(Path::new("/no/such/folder/zoo.cfg"), "").unwrap_err();
        assert!(error.to_string().starts_with("/no/such/folder/zoo.cfg: "));
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
