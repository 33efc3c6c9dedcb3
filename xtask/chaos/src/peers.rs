//! The network between the members of a cluster, in which one member can be cut off from the others, both ways.
//!
//! A cluster gives each member one address, so a proxy in front of a member sees the connections of all others alike. Whose a
//! connection is, is asked of the kernel when it is accepted; from there on it goes through a proxy of its own for each pair.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use sd_testing::{Fault, TcpProxy};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet, spawn_blocking};

use crate::Result;
use crate::witness::{Question, Sees, Witness};

/// What members answer each other, whatever their state.
const QUESTION: Question = Question::Http("/version");

/// Dropping it ends all connections between members.
#[derive(Debug)]
pub(crate) struct Peers {
    /// Where each member is reached by the others.
    addresses: Vec<SocketAddr>,
    /// By the member that connects, then the one that it connects to.
    pairs: Arc<Vec<Vec<TcpProxy>>>,
    /// Between the member that is cut off and all others.
    witnesses: Vec<Witness>,
    tasks: Vec<AbortHandle>,
}

impl Peers {
    /// For members that listen to each other at `listening`.
    pub(crate) async fn between(listening: &[SocketAddr]) -> Result<Self> {
        let mut pairs = Vec::new();
        for _ in listening {
            let mut to_all = Vec::new();
            for target in listening {
                to_all.push(TcpProxy::start(*target).await?);
            }
            pairs.push(to_all);
        }
        let mut peers = Self {
            addresses: Vec::new(),
            pairs: Arc::new(pairs),
            witnesses: Vec::new(),
            tasks: Vec::new(),
        };
        for target in 0..listening.len() {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
            peers.addresses.push(listener.local_addr()?);
            let pairs = Arc::clone(&peers.pairs);
            let task = tokio::spawn(accept(listener, target, pairs, listening.to_vec()));
            peers.tasks.push(task.abort_handle());
        }
        Ok(peers)
    }

    pub(crate) fn address(&self, member: usize) -> SocketAddr {
        self.addresses[member]
    }

    /// Loses everything that this member and the others send to each other.
    pub(crate) async fn cut_off(&mut self, member: usize) -> Result<()> {
        let mut witnesses = Vec::new();
        for proxy in self.pairs_of(member) {
            witnesses.push(Witness::connect(proxy.address(), QUESTION).await?);
        }
        for proxy in self.pairs_of(member) {
            proxy.set(Fault::BlackHole);
        }
        for witness in &mut witnesses {
            witness.ask().await;
        }
        self.witnesses = witnesses;
        Ok(())
    }

    /// # Errors
    /// Something came through.
    pub(crate) async fn heal(&mut self, member: usize) -> Result<()> {
        let mut was_cut_off = Ok(());
        for mut witness in self.witnesses.drain(..) {
            was_cut_off = was_cut_off.and(witness.check(Sees::Silence).await);
        }
        for proxy in self.pairs_of(member) {
            proxy.set(Fault::Pass);
        }
        was_cut_off
    }

    /// The proxies from this member to the others, and from them to it.
    fn pairs_of(&self, member: usize) -> impl Iterator<Item = &TcpProxy> {
        let pairs = self.pairs.iter().enumerate();
        pairs.flat_map(move |(source, to_all)| {
            let is_of = move |target| (source == member) != (target == member);
            let to_all = to_all.iter().enumerate();
            to_all.filter_map(move |(target, proxy)| is_of(target).then_some(proxy))
        })
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Hands each connection to the proxy of its pair. A connection of no known pair is closed; members try again.
async fn accept(
    listener: TcpListener,
    target: usize,
    pairs: Arc<Vec<Vec<TcpProxy>>>,
    listening: Vec<SocketAddr>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((connection, from)) = accepted {
                let (pairs, listening) = (Arc::clone(&pairs), listening.clone());
                connections.spawn(async move {
                    let source = spawn_blocking(move || member_of(from, &listening)).await;
                    if let Ok(Some(source)) = source {
                        // However it ends, both sides learn it.
                        let _ = forward(connection, pairs[source][target].address()).await;
                    }
                });
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn forward(mut client: TcpStream, proxy: SocketAddr) -> Result<()> {
    let mut server = TcpStream::connect(proxy).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

/// The member whose process has a socket at the local address `from`.
fn member_of(from: SocketAddr, listening: &[SocketAddr]) -> Option<usize> {
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    let inode = inode_of(&table, from.port())?;
    let link = format!("socket:[{inode}]");
    listening.iter().position(|address| {
        process_with_argument(&format!("http://{address}"))
            .is_some_and(|process| holds(&process, &link))
    })
}

/// The inode of the established socket that has this local port.
fn inode_of(table: &str, port: u16) -> Option<&str> {
    const ESTABLISHED: &str = "01";
    let local = format!("0100007F:{port:04X}");
    table.lines().find_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let is_it = columns.get(1) == Some(&local.as_str()) && columns.get(3) == Some(&ESTABLISHED);
        is_it.then(|| columns.get(9).copied()).flatten()
    })
}

/// The `/proc` folder of the process that has this among its arguments.
fn process_with_argument(argument: &str) -> Option<std::path::PathBuf> {
    let processes = fs::read_dir("/proc").ok()?;
    processes
        .flatten()
        .map(|entry| entry.path())
        .find(|folder| {
            fs::read(folder.join("cmdline")).is_ok_and(|line| {
                line.split(|byte| *byte == 0)
                    .any(|part| part == argument.as_bytes())
            })
        })
}

fn holds(process: &std::path::Path, link: &str) -> bool {
    let Ok(descriptors) = fs::read_dir(process.join("fd")) else {
        return false;
    };
    descriptors
        .flatten()
        .any(|entry| fs::read_link(entry.path()).is_ok_and(|to| to.as_os_str() == link))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_is_found_to_be_that_of_the_process_which_opened_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (_server, from) = listener.accept().await.unwrap();
        assert_eq!(from, client.local_addr().unwrap());
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        let inode = inode_of(&table, from.port()).unwrap();
        let own = std::path::Path::new("/proc/self");
        assert!(holds(own, &format!("socket:[{inode}]")));
        assert!(!holds(own, "socket:[0]"));
    }

    #[test]
    fn the_servers_side_of_a_connection_is_not_taken_for_the_clients() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:1F90 0100007F:C350 01 0:0 0:0 0 0 0 777 1 0 20 4 30 10 -1\n\
             1: 0100007F:C350 0100007F:1F90 01 0:0 0:0 0 0 0 888 1 0 20 4 30 10 -1\n";
        assert_eq!(inode_of(table, 0xC350), Some("888"));
        assert_eq!(inode_of(table, 0x1111), None);
    }
}
