//! What a leader writes to: one register for each election, once behind a fence and once without. It is never faulty, and notes
//! when it took which term's writes.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use sd_core::FencingToken;
use sd_core::sync::lock;
use sd_election::{Fence, Refused};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

use crate::Result;
use crate::history::{At, Election, Event, Line};

/// One write, as a line of JSON. The answer is a line with `true` or `false`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Write {
    pub(crate) node: String,
    pub(crate) election: Election,
    pub(crate) token: FencingToken,
    pub(crate) fenced: bool,
}

/// A running register. Dropping it ends its connections.
#[derive(Debug)]
pub(crate) struct Register {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: AbortHandle,
}

#[derive(Debug, Default)]
struct State {
    fences: BTreeMap<Election, Fence>,
    /// The runs of writes that go on, by election and whether they are fenced.
    runs: BTreeMap<(Election, bool), Run>,
    lines: Vec<Line>,
}

/// Writes of one term with none of another in between.
#[derive(Debug)]
struct Run {
    node: String,
    token: u64,
    first: At,
    last: At,
    count: u64,
}

impl Register {
    pub(crate) async fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let state = Arc::<Mutex<State>>::default();
        let task = tokio::spawn(accept(listener, Arc::clone(&state))).abort_handle();
        Ok(Self {
            address,
            state,
            task,
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// All that was noted since the last call.
    pub(crate) fn take_lines(&self) -> Vec<Line> {
        let mut state = lock(&self.state);
        state.take_lines()
    }
}

impl Drop for Register {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, state: Arc<Mutex<State>>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((connection, _)) = accepted {
                connections.spawn(serve(connection, Arc::clone(&state)));
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Answers until the writer is gone, be it by kill -9.
async fn serve(mut connection: TcpStream, state: Arc<Mutex<State>>) -> Result<()> {
    connection.set_nodelay(true)?;
    let (reader, mut writer) = connection.split();
    let mut lines = BufReader::new(reader).lines();
    while let Some(line) = lines.next_line().await? {
        let write: Write = serde_json::from_str(&line)?;
        let taken = {
            let mut state = lock(&state);
            state.take(&write, At::now())
        };
        writer.write_all(format!("{taken}\n").as_bytes()).await?;
    }
    Ok(())
}

impl State {
    fn take(&mut self, write: &Write, at: At) -> bool {
        let election = write.election;
        if write.fenced
            && let Err(refused) = self.fences.entry(election).or_default().admit(&write.token)
        {
            let (Refused::Stale { highest, .. } | Refused::OtherDomain { highest, .. }) = refused;
            let event = Event::Refused {
                election,
                token: write.token.value(),
                highest: highest.value(),
            };
            self.lines.push(Line {
                at,
                node: write.node.clone(),
                event,
            });
            return false;
        }
        let token = write.token.value();
        let key = (election, write.fenced);
        let goes_on = self
            .runs
            .get(&key)
            .is_some_and(|run| run.node == write.node && run.token == token);
        if !goes_on {
            let begun = Run {
                node: write.node.clone(),
                token,
                first: at,
                last: at,
                count: 0,
            };
            let over = self.runs.insert(key, begun);
            self.lines.extend(over.map(|run| run.into_line(key)));
        }
        if let Some(run) = self.runs.get_mut(&key) {
            run.last = at;
            run.count += 1;
        }
        true
    }

    fn take_lines(&mut self) -> Vec<Line> {
        let runs = std::mem::take(&mut self.runs);
        self.lines
            .extend(runs.into_iter().map(|(key, run)| run.into_line(key)));
        std::mem::take(&mut self.lines)
    }
}

impl Run {
    fn into_line(self, (election, fenced): (Election, bool)) -> Line {
        Line {
            at: self.first,
            node: self.node,
            event: Event::Accepted {
                election,
                token: self.token,
                fenced,
                first: self.first,
                last: self.last,
                count: self.count,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(node: &str, token: u64, fenced: bool) -> Write {
        Write {
            node: node.to_owned(),
            election: Election::Plain,
            token: FencingToken::new("cluster", token),
            fenced,
        }
    }

    fn at(ns: u64) -> At {
        At::from_start(std::time::Duration::from_nanos(ns))
    }

    #[test]
    fn only_the_fence_refuses_and_runs_are_noted_as_one() {
        let mut state = State::default();
        let writes = [
            ("a", 1, true, true),
            ("a", 1, false, true),
            ("a", 1, true, true),
            ("b", 2, true, true),
            ("a", 1, true, false),
            ("a", 1, false, true),
            ("b", 2, false, true),
        ];
        for (ns, (node, token, fenced, taken)) in (1..).zip(writes) {
            assert_eq!(
                state.take(&write(node, token, fenced), at(ns)),
                taken,
                "write {ns}"
            );
        }
        let mut noted: Vec<_> = state
            .take_lines()
            .iter()
            .map(|line| match &line.event {
                Event::Accepted {
                    fenced,
                    first,
                    last,
                    count,
                    ..
                } => {
                    format!("{first:?}-{last:?} {} {fenced} {count}", line.node)
                }
                Event::Refused { token, highest, .. } => {
                    format!("{:?} {} {token} < {highest}", line.at, line.node)
                }
                other => panic!("{other:?}"),
            })
            .collect();
        noted.sort_unstable();
        assert_eq!(
            noted,
            [
                "1-3 a true 2",
                "2-6 a false 2",
                "4-4 b true 1",
                "5 a 1 < 2",
                "7-7 b false 1"
            ]
        );
    }
}
