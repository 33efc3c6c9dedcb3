//! Requests to Redis and their answers. Knows nothing of discovery.

pub(crate) mod answer;
pub(crate) mod connection;
pub(crate) mod credentials;
pub(crate) mod error;
mod nodes;
pub(crate) mod script;
pub(crate) mod subscriptions;
pub(crate) mod topology;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Pipeline, ServerError, ServerErrorKind, Value};
use sd_backend::{CloseSignal, Connection, Unanswered};
use sd_core::{Endpoint, Error, ErrorKind, Result};
use tokio::time::timeout;
use tracing::debug;

use crate::client::answer::Answers;
use crate::client::connection::{Dialer, Link};
use crate::client::error::{is_broken, is_no_primary, no_answer, refused, translate};
use crate::client::nodes::Nodes;
use crate::client::script::{Named, Script};
use crate::client::subscriptions::Subscriptions;
use crate::client::topology::{Place, Topology, slot_of};
use crate::config::RedisConfig;

/// A request that was given up after this long counts against its connection; one given up sooner was not wanted any more.
const SUSPECT_AFTER: Duration = Duration::from_millis(300);
/// How often a request goes out at most: to where its keys have moved, with the text of its script, on another connection.
const MOST_ROUNDS: u32 = 6;

/// One server, or several that belong together, each reached through one connection at a time. Does nothing until it is used.
pub(crate) struct Client {
    dialer: Arc<Dialer>,
    topology: Arc<Topology>,
    nodes: Arc<Nodes>,
    subscriptions: Subscriptions,
    pub(crate) signal: CloseSignal,
}

/// What came of one round of a request.
enum Round {
    Answered(Vec<Value>),
    /// The node that has the keys now, for good or for this request alone.
    Elsewhere {
        node: Endpoint,
        is_asking: bool,
    },
    /// The server does not know a script.
    Unknown,
    /// Nothing was done. The next round may find another server.
    Again(Error),
    /// It is not known what was done.
    Failed(Error),
    /// There is no connection to be had.
    Refused(Error),
}

impl Client {
    /// A client for a [checked](RedisConfig::checked) configuration.
    pub(crate) fn new(config: RedisConfig) -> Self {
        Self::on(CloseSignal::new(), config, Topology::new)
    }

    /// A client of the same servers with connections of its own. The two are closed together.
    pub(crate) fn sibling(&self) -> Self {
        Self::on(self.signal.clone(), self.config().clone(), Topology::new)
    }

    /// A client of the servers that are read, if they are named apart. The two are closed together.
    pub(crate) fn of_readers(&self) -> Option<Self> {
        let config = self.config().clone();
        let topology = |dialer: &Arc<Dialer>, _: &Arc<Nodes>| Topology::of_readers(dialer);
        (!config.read_endpoints.is_empty()).then(|| Self::on(self.signal.clone(), config, topology))
    }

    fn on(
        signal: CloseSignal,
        config: RedisConfig,
        topology: impl FnOnce(&Arc<Dialer>, &Arc<Nodes>) -> Topology,
    ) -> Self {
        let (dialer, nodes) = (Arc::new(Dialer::new(config)), Arc::new(Nodes::new(&signal)));
        let topology = Arc::new(topology(&dialer, &nodes));
        Self {
            subscriptions: Subscriptions::new(&dialer, &topology, &signal),
            dialer,
            topology,
            nodes,
            signal,
        }
    }

    pub(crate) fn config(&self) -> &RedisConfig {
        self.dialer.config()
    }

    /// What is told of channels.
    pub(crate) fn subscriptions(&self) -> &Subscriptions {
        &self.subscriptions
    }

    /// Runs a script on keys of one slot, and returns the list that it answers. The script must do no more when it runs again, since it does
    /// where a connection fails before the answer.
    ///
    /// # Errors
    /// What the server answered instead, or why it did not answer.
    ///
    /// # Cancel safety
    /// After a dropped call, the script may have run.
    pub(crate) async fn run(
        &self,
        op: &'static str,
        script: &Script,
        keys: &[&str],
        args: &[&[u8]],
    ) -> Result<Answers> {
        let commands = |named| {
            let mut commands = Pipeline::new();
            commands.add_command(script.call(named, keys, args));
            commands
        };
        let key = keys.first().copied().unwrap_or_default();
        self.ask(op, key, commands).await?.list()
    }

    /// Sends commands on keys of the same slot as `key` together, and returns their answers. They must do no more when they are done again.
    ///
    /// # Errors
    /// Why there are no answers. A refusal of one command is found in its place.
    ///
    /// # Cancel safety
    /// After a dropped call, the commands may have been carried out.
    pub(crate) async fn ask(
        &self,
        op: &'static str,
        key: &str,
        commands: impl Fn(Named) -> Pipeline,
    ) -> Result<Answers> {
        let limit = self.config().request_timeout;
        // Connecting is large, and so would be everything that asks for something.
        let attempt = Box::pin(self.attempt(op, slot_of(key), &commands));
        let asking = async {
            let done = timeout(limit, attempt).await;
            done.unwrap_or_else(|_| Err(no_answer(op, limit)))
        };
        let values = self.signal.unless_closed(op, asking).await?;
        Ok(Answers::new(op, values))
    }

    /// As [`ask`](Self::ask), for one command without a script.
    pub(crate) async fn command(
        &self,
        op: &'static str,
        key: &str,
        command: &Cmd,
    ) -> Result<Answers> {
        let commands = |_| {
            let mut commands = Pipeline::new();
            commands.add_command(command.clone());
            commands
        };
        self.ask(op, key, commands).await
    }

    async fn attempt(
        &self,
        op: &'static str,
        slot: u16,
        commands: &impl Fn(Named) -> Pipeline,
    ) -> Result<Vec<Value>> {
        let mut named = Named::ByHash;
        let mut elsewhere: Option<(Endpoint, bool)> = None;
        let mut has_failed = false;
        for _ in 0..MOST_ROUNDS {
            let (place, is_asking) = match elsewhere.take() {
                Some((node, is_asking)) => (Some(node), is_asking),
                None => (self.topology.place(op, slot).await?, false),
            };
            let sent = if is_asking {
                asking(&commands(named))
            } else {
                commands(named)
            };
            match self.round(op, &place, &sent).await {
                Round::Answered(values) if is_asking => return Ok(without_asking(values)),
                Round::Answered(values) => return Ok(values),
                Round::Unknown if named == Named::ByHash => named = Named::WithText,
                Round::Unknown => {
                    let why = "the server knows no script by the text that was sent with it";
                    return Err(Error::new(ErrorKind::Unavailable, op).because(why));
                }
                Round::Elsewhere { node, is_asking } => {
                    if !is_asking {
                        self.topology.note_moved(slot, &node);
                    }
                    elsewhere = Some((node, is_asking));
                }
                Round::Refused(error) => return Err(error),
                Round::Again(error) | Round::Failed(error) => {
                    if has_failed {
                        return Err(error);
                    }
                    has_failed = true;
                }
            }
        }
        let why = "its keys move from node to node";
        Err(Error::new(ErrorKind::Unavailable, op).because(why))
    }

    async fn round(&self, op: &'static str, place: &Place, commands: &Pipeline) -> Round {
        let shared = self.nodes.at(place);
        if let Some(current) = shared.current()
            && self.topology.has_left(op, &current).await
        {
            debug!(server = %current.address(), "the primary is another server now");
            shared.renew(&current);
        }
        let opening = self.topology.open(op, place);
        let waiting = Waiting {
            node: place.as_ref(),
            topology: &self.topology,
        };
        let link = match shared.get_or_connect(opening).await {
            Ok(link) => {
                waiting.ended();
                link
            }
            Err(error) => {
                return match place {
                    // Another node may have its slots now.
                    Some(_) if sd_backend::is_unreachable(&error) => Round::Again(error),
                    _ => Round::Refused(error),
                };
            }
        };
        self.subscriptions.follow(link.address());
        let under_way = UnderWay {
            unanswered: Some(Unanswered::new(&shared, &link, SUSPECT_AFTER)),
            link: &link,
            topology: &self.topology,
        };
        let sent = link.send(commands).await;
        under_way.answered();
        let values = match sent {
            Ok(values) => values,
            Err(error) => {
                let broken = is_broken(&error);
                let error = translate(op, error);
                debug!(error = %error.report(), "Redis connection given up");
                if broken {
                    shared.retire(&link);
                    self.topology.doubt(link.address());
                }
                return Round::Failed(error);
            }
        };
        let Some(refusal) = routing_error(&values) else {
            return Round::Answered(values);
        };
        match refusal.kind() {
            Some(ServerErrorKind::NoScript) => Round::Unknown,
            Some(kind @ (ServerErrorKind::Moved | ServerErrorKind::Ask)) => {
                match node_of(refusal.details(), link.address()) {
                    Some(node) => Round::Elsewhere {
                        node,
                        is_asking: kind == ServerErrorKind::Ask,
                    },
                    None => Round::Failed(refused(op, refusal)),
                }
            }
            kind => {
                debug!(server = %link.address(), refusal = refusal.code(), "the primary may be another server now");
                // A node that misses others is not to blame. They may do without it.
                if kind != Some(ServerErrorKind::ClusterDown) {
                    shared.retire(&link);
                }
                self.topology.doubt(link.address());
                Round::Again(refused(op, refusal))
            }
        }
    }
}

/// A connection to a node is waited for. If there is none, or the call is dropped, the node is in doubt: also where another call dials, which
/// may wait for longer.
struct Waiting<'a> {
    node: Option<&'a Endpoint>,
    topology: &'a Topology,
}

impl Waiting<'_> {
    fn ended(mut self) {
        self.node = None;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(node) = self.node {
            self.topology.doubt(node);
        }
    }
}

/// A request that was sent. One that is dropped before its answer, and not at once, makes its connection and what is known of its server
/// doubtful: core gives up sooner than a time limit of ours ends.
struct UnderWay<'a> {
    unanswered: Option<Unanswered<'a, Link>>,
    link: &'a Connection<Link>,
    topology: &'a Topology,
}

impl UnderWay<'_> {
    fn answered(mut self) {
        if let Some(unanswered) = self.unanswered.take() {
            unanswered.answered();
        }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let Some(unanswered) = self.unanswered.take() else {
            return;
        };
        drop(unanswered);
        if self.link.is_retired() {
            self.topology.doubt(self.link.address());
        }
    }
}

/// The commands, which a node is to carry out although their keys are still moving to it: each of them, since it forgets that after one.
fn asking(commands: &Pipeline) -> Pipeline {
    let mut sent = Pipeline::new();
    for command in commands.cmd_iter() {
        sent.cmd("ASKING").add_command(command.clone());
    }
    sent
}

/// The answers to commands that were sent with [`asking`].
fn without_asking(values: Vec<Value>) -> Vec<Value> {
    values.into_iter().skip(1).step_by(2).collect()
}

/// The answer that says where to ask, or how, or that this is not where to ask, in place of what was asked for.
fn routing_error(values: &[Value]) -> Option<&ServerError> {
    use ServerErrorKind::{Ask, Moved, NoScript};
    values.iter().find_map(|value| match value {
        Value::ServerError(error)
            if matches!(error.kind(), Some(NoScript | Moved | Ask)) || is_no_primary(error) =>
        {
            Some(error)
        }
        _ => None,
    })
}

/// The node in `SLOT HOST:PORT`. Without a host it is that of the node which was asked.
fn node_of(details: Option<&str>, asked: &Endpoint) -> Option<Endpoint> {
    let (_, address) = details?.split_once(' ')?;
    let (host, port) = address.trim().rsplit_once(':')?;
    let port = port.parse().ok()?;
    match (host, asked.address()) {
        ("", sd_core::Address::Tcp { host, .. }) => Endpoint::tcp(host, port).ok(),
        _ => Endpoint::tcp(host, port).ok(),
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("endpoints", &self.config().endpoints)
            .field("prefix", &self.config().prefix)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use redis::parse_redis_value;

    use super::*;

    fn answer(text: &str) -> Value {
        parse_redis_value(text.as_bytes()).unwrap()
    }

    #[test]
    fn where_to_ask_is_found_among_all_answers() {
        let of = |text: &str| {
            let values = [Value::Okay, answer(text)];
            routing_error(&values).map(|error| error.code().to_owned())
        };
        assert_eq!(of("-MOVED 1 h:1\r\n").as_deref(), Some("MOVED"));
        assert_eq!(of("-NOSCRIPT x\r\n").as_deref(), Some("NOSCRIPT"));
        for code in ["READONLY", "CLUSTERDOWN", "MASTERDOWN"] {
            assert_eq!(of(&format!("-{code} x\r\n")).as_deref(), Some(code));
        }
        assert_eq!(of("-ERR syntax error\r\n"), None);
        assert_eq!(of("$3\r\n-MO\r\n"), None);
    }

    #[tokio::test]
    async fn a_call_that_gives_up_on_a_node_which_another_one_dials_has_the_nodes_asked() {
        // It takes connections, and answers nothing.
        let hole = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let node: Endpoint = hole.local_addr().unwrap().to_string().parse().unwrap();
        let config = RedisConfig::from_url(&format!("redis+cluster://{node}")).unwrap();
        let long = Duration::from_secs(60);
        let config = config.with_connect_timeout(long).with_request_timeout(long);
        let client = Client::new(config.checked().unwrap());
        let key = "greeter";
        client.topology.note_moved(slot_of(key), &node);
        let command = Cmd::new().arg("GET").arg(key).to_owned();
        let patient = client.command("test", key, &command);
        tokio::pin!(patient);
        assert!(patient.as_mut().now_or_never().is_none());
        let is_known = || {
            let place = client.topology.place("test", slot_of(key)).now_or_never();
            place.is_some_and(|place| place.is_ok())
        };
        assert!(is_known());
        let given_up = timeout(
            Duration::from_millis(10),
            client.command("test", key, &command),
        );
        assert!(given_up.await.is_err() && !is_known());
        assert!(patient.now_or_never().is_none());
    }

    #[test]
    fn each_command_to_where_its_keys_are_moving_asks_for_itself() {
        let mut commands = Pipeline::new();
        commands.cmd("ONE").cmd("TWO");
        let sent = asking(&commands);
        let words: Vec<_> = sent.cmd_iter().map(Cmd::get_packed_command).collect();
        let word = |word: &str| format!("*1\r\n${}\r\n{word}\r\n", word.len()).into_bytes();
        assert_eq!(words, ["ASKING", "ONE", "ASKING", "TWO"].map(word));
        let said = ["+OK\r\n", "+1\r\n", "+OK\r\n", "+2\r\n"]
            .map(answer)
            .into();
        let kept = ["+1\r\n", "+2\r\n"].map(answer);
        assert_eq!(without_asking(said), kept);
    }

    #[test]
    fn a_node_is_read_with_and_without_its_host() {
        let asked: Endpoint = "h:7000".parse().unwrap();
        let node = |details| node_of(Some(details), &asked).map(|node| node.to_string());
        assert_eq!(node("3999 10.0.0.1:6381").as_deref(), Some("10.0.0.1:6381"));
        assert_eq!(node("3999 :6381").as_deref(), Some("h:6381"));
        assert_eq!(node("3999 ::1:6381").as_deref(), Some("[::1]:6381"));
        for odd in ["", "3999", "3999 h", "3999 h:0", "3999 h h:1"] {
            assert_eq!(node(odd), None);
        }
        assert_eq!(node_of(None, &asked), None);
    }
}
