//! Binding the agent's addresses.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::{Errno, ioctl_fionbio};
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketType};
use sd_core::Printable;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::config::{ConfigError, Listen};

/// A bound address.
#[derive(Debug)]
pub(crate) struct Bound {
    /// Where it is; the port is the one that the system chose if none was named.
    pub(crate) listen: Listen,
    socket: Socket,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(
        UnixListener,
        #[expect(dead_code, reason = "dropping it removes the socket")] SocketFile,
    ),
}

/// A connection that was accepted.
#[derive(Debug)]
pub(crate) enum Accepted {
    Tcp(TcpStream, SocketAddr),
    /// With the peer's user.
    Unix(UnixStream, u32),
}

impl Bound {
    /// Binds. Blocks for a moment where that is a Unix socket.
    ///
    /// # Errors
    /// Why the address cannot be used, and what to do.
    pub(crate) async fn bind(listen: &Listen, socket_mode: u32) -> Result<Self, ConfigError> {
        let failed = |error: io::Error| {
            let listen = Printable(&listen.to_string()).to_string();
            ConfigError::new(format!("cannot listen at {listen}: {error}"))
        };
        match listen {
            Listen::Tcp(address) | Listen::Tls(address) => {
                let listener = TcpListener::bind(address).await.map_err(failed)?;
                let bound = listener.local_addr().map_err(failed)?;
                Ok(Self {
                    listen: match listen {
                        Listen::Tls(_) => Listen::Tls(bound),
                        _ => Listen::Tcp(bound),
                    },
                    socket: Socket::Tcp(listener),
                })
            }
            Listen::Unix(path) => {
                let (listener, file) = SocketFile::bind(path, socket_mode).map_err(failed)?;
                Ok(Self {
                    listen: listen.clone(),
                    socket: Socket::Unix(listener, file),
                })
            }
        }
    }

    /// The next connection. Cancel-safe.
    pub(crate) async fn accept(&self) -> io::Result<Accepted> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                prepare(&stream)?;
                Ok(Accepted::Tcp(stream, peer))
            }
            Socket::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                let user = stream.peer_cred()?.uid();
                Ok(Accepted::Unix(stream, user))
            }
        }
    }
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    // How long a peer that is gone without a word, or whose window is closed, keeps its connection, in milliseconds.
    #[cfg(target_os = "linux")]
    rustix::net::sockopt::set_tcp_user_timeout(stream, 30_000)?;
    rustix::net::sockopt::set_socket_keepalive(stream, true)?;
    Ok(())
}

/// The file of a Unix socket, which is removed when this is dropped, unless another one has taken its place.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
    /// Held for as long as the agent lives. The kernel lets go of it however the agent ends, so that it tells the stale socket of one that
    /// was killed from that of one that lives.
    _lock: File,
}

impl SocketFile {
    fn bind(path: &Path, mode: u32) -> io::Result<(UnixListener, Self)> {
        let beside = |end: &str| {
            let mut name = path.as_os_str().to_owned();
            name.push(end);
            PathBuf::from(name)
        };
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(beside(".lock"))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(in_use(
                    "another agent listens there: stop it, or name another path",
                ));
            }
            Err(error) => return Err(error.into()),
        }
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(in_use(
                    "what is there is no socket: remove it, or name another path",
                ));
            }
            Ok(_) if is_alive(path)? => {
                return Err(in_use(
                    "another program listens there: stop it, or name another path",
                ));
            }
            _ => {}
        }
        let listener = listen_at(path, mode, &beside(".new"))?;
        let socket = fs::symlink_metadata(path)?;
        let file = Self {
            path: path.to_owned(),
            identity: (socket.dev(), socket.ino()),
            _lock: lock,
        };
        Ok((listener, file))
    }
}

/// Whether a process listens at a socket. That of a process that is gone refuses.
fn is_alive(path: &Path) -> io::Result<bool> {
    let socket = net::socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
    ioctl_fionbio(&socket, true)?;
    let address = SocketAddrUnix::new(path)?;
    // A process that does not accept has a queue that is full: who waits for room in it may wait for ever.
    Ok(matches!(
        net::connect(&socket, &address),
        Ok(()) | Err(Errno::AGAIN)
    ))
}

/// Binds a socket in a `folder` of our own first, so that no other user connects before the mode is set, and a stale socket is replaced
/// at once.
fn listen_at(path: &Path, mode: u32, folder: &Path) -> io::Result<UnixListener> {
    let new = folder.join("s");
    // It is there if an agent was killed at this point. What cannot be removed is told of by what follows.
    let clear = || {
        let _ = fs::remove_file(&new);
        let _ = fs::remove_dir(folder);
        // Or a socket that something else has left there.
        let _ = fs::remove_file(folder);
    };
    clear();
    DirBuilder::new().mode(0o700).create(folder)?;
    let listen = || {
        let listener = UnixListener::bind(&new)?;
        fs::set_permissions(&new, Permissions::from_mode(mode))?;
        fs::rename(&new, path)?;
        Ok(listener)
    };
    let listener = listen();
    clear();
    listener
}

fn in_use(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::AddrInUse, why)
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = |found: fs::Metadata| (found.dev(), found.ino()) == self.identity;
        if fs::symlink_metadata(&self.path).is_ok_and(is_ours) {
            // One that is left is replaced by the next agent.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn bind(path: &Path) -> Result<Bound, String> {
        let listen = Listen::Unix(path.to_owned());
        Bound::bind(&listen, 0o660)
            .await
            .map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn a_socket_is_replaced_when_it_is_stale_and_left_when_one_lives_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.sock");
        let first = bind(&path).await.unwrap();
        let mode = fs::metadata(&path).unwrap().mode() & 0o777;
        assert_eq!(mode, 0o660);
        let why = bind(&path).await.unwrap_err();
        assert!(why.contains("another agent listens there"), "{why}");
        drop(first);
        assert!(!path.exists());

        // A socket that its process has left behind.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let second = bind(&path).await.unwrap();
        let client = UnixStream::connect(&path).await.unwrap();
        let Accepted::Unix(_, user) = second.accept().await.unwrap() else {
            panic!("no Unix socket");
        };
        assert_eq!(user, rustix::process::getuid().as_raw());
        drop((client, second));

        let other = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let why = bind(&path).await.unwrap_err();
        assert!(why.contains("another program listens there"), "{why}");
        drop(other);

        // A killed agent has left the folder in which it had bound its socket.
        let new = folder.path().join("agent.sock.new");
        fs::create_dir(&new).unwrap();
        drop(std::os::unix::net::UnixListener::bind(new.join("s")).unwrap());
        drop(bind(&path).await.unwrap());
        assert!(!new.exists() && !path.exists());

        fs::write(&path, "data").unwrap();
        let why = bind(&path).await.unwrap_err();
        assert!(why.contains("no socket"), "{why}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "data");
    }

    #[tokio::test]
    async fn one_that_accepts_no_connection_holds_up_no_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.sock");
        let address = SocketAddrUnix::new(&path).unwrap();
        let socket = || net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        let deaf = socket();
        net::bind(&deaf, &address).unwrap();
        net::listen(&deaf, 0).unwrap();
        let mut waiting = Vec::new();
        loop {
            let client = socket();
            ioctl_fionbio(&client, true).unwrap();
            if net::connect(&client, &address).is_err() {
                break;
            }
            waiting.push(client);
        }
        let why = bind(&path).await.unwrap_err();
        assert!(why.contains("another program listens there"), "{why}");
    }
}
