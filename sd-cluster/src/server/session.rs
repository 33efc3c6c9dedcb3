//! One connection of a module, from its upgrade to its end.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use sd_backend::read_json;
use sd_core::{Printable, Result, brief, panics::caught};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use tungstenite::protocol::Role;

use super::instrument::{self, What};
use super::outbox::Outbox;
use super::owner::{Listed, Owner};
use super::places::peer_of;
use super::state::{SessionId, State};
use super::throttle::Throttle;
use crate::etp::connection::{Connection, Times, open_counted};
use crate::etp::ended::Ended;
use crate::etp::in_flight::InFlight;
use crate::etp::message::Message;
use crate::protocol::config_data::ConfigData;
use crate::protocol::declaration::BackendDeclaration;
use crate::protocol::events::{
    MODULE_READY, MODULE_SEND_CONFIG_SCHEMA, MODULE_SEND_REQUIREMENTS, OK,
};
use crate::protocol::requirements::ModuleRequirements;

const OP: &str = "config service: serve a module";
/// How many refusals of one connection are warned of.
const MOST_WARNINGS: u64 = 10;

/// What a session needs of its service.
#[derive(Clone, Debug)]
pub(super) struct Host {
    pub(super) owner: Owner,
    pub(super) times: Times,
    pub(super) stop: CancellationToken,
    pub(super) in_flight: InFlight,
    /// What is told of connections that were ended for their memory.
    pub(super) no_room: Arc<Throttle>,
}

/// Why an event is answered with a text that is not `ok`.
struct Refused {
    /// Sent to the module.
    answer: String,
    /// Logged. The answer may repeat what the module sent.
    why: String,
}

impl Host {
    /// Serves the module `name` over a connection from `address` that has become a WebSocket. `read` is what came behind its request.
    pub(super) async fn serve<S>(&self, stream: S, read: BytesMut, name: Arc<str>, address: IpAddr)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let account = Some(self.in_flight.account(peer_of(address)));
        let connection = open_counted(stream, Role::Server, read, self.times, account);
        let peer = connection.peer.clone();
        // Without a name it is closed at once, as isp-config-service does.
        if !name.is_empty() {
            self.serve_module(connection, &name, address).await;
        }
        // The connection takes its place among all until its socket is gone.
        peer.close();
        peer.gone().await;
    }

    /// Serves a module until its connection is over.
    async fn serve_module(&self, connection: Connection, name: &Arc<str>, address: IpAddr) {
        let peer = connection.peer.clone();
        let outbox = Outbox::default();
        let connect = {
            let (owner, name, outbox) = (self.owner.clone(), Arc::clone(name), outbox.clone());
            // Made where the session is listed, so that it is removed also if this call is dropped meanwhile.
            move |state: &mut State| {
                let id = state.connect(&name, outbox)?;
                Ok::<Listed, String>(owner.listed(id))
            }
        };
        let Ok(listed) = self.owner.call(OP, connect).await else {
            return;
        };
        // Why it is not listed is told in the answer to each event.
        let session = listed.as_ref().map(|listed| listed.id);
        let ended = caught(OP, self.follow(connection, &outbox, session, name)).await;
        drop(listed);
        let module = brief(Printable(name));
        if let Err(error) = ended {
            warn!(module, error = %error.report(), "a module is served no longer");
            return;
        }
        let ended = peer.ended().await;
        if ended == Ended::NoRoom {
            instrument::refused(What::Memory);
            if let Some(times) = self.no_room.count() {
                warn!(module, peer = %address, times, "a connection of a module is closed: {ended}");
            }
        }
        debug!(module, %ended, "a module has left");
    }

    /// Handles one event after another, and sends what is due, until the connection is over.
    async fn follow(
        &self,
        mut connection: Connection,
        outbox: &Outbox,
        session: Result<SessionId, &String>,
        name: &str,
    ) -> Result<()> {
        let peer = connection.peer.clone();
        let mut refusals = 0;
        loop {
            let event = tokio::select! {
                biased;
                () = self.stop.cancelled() => {
                    peer.close();
                    return Ok(());
                }
                _ = peer.ended() => return Ok(()),
                message = outbox.next() => {
                    // A peer that reads nothing holds up no stop, which the loop handles next.
                    let sending = self.stop.run_until_cancelled(peer.send_encoded(OP, message));
                    if let Some(Err(_)) = sending.await {
                        return Ok(());
                    }
                    // Lists that change all the time hold up no event, and events no more than one answer, which repeats what the peer says.
                    if outbox.owes_answer() {
                        continue;
                    }
                    match connection.events.try_recv() {
                        Some(event) => event,
                        None => continue,
                    }
                }
                event = connection.events.recv() => match event {
                    Some(event) => event,
                    None => return Ok(()),
                }
            };
            let answer = match session {
                Ok(session) => self.handle(session, &event).await?,
                Err(why) => Err(Refused::of(&event, why)),
            };
            let answer = answer.unwrap_or_else(|refused| {
                instrument::refused(What::Event);
                refusals += 1;
                refused.log(name, &event, refusals);
                refused.answer.into()
            });
            if event.wants_answer() {
                let answer = event.answer(answer).encode();
                outbox.answer(answer, Some(event.into_spent()));
            }
        }
    }

    /// # Errors
    /// The service has ended.
    async fn handle(&self, session: SessionId, event: &Message) -> Result<Result<Bytes, Refused>> {
        let name = std::str::from_utf8(&event.name).unwrap_or_default();
        let done = match name {
            MODULE_SEND_CONFIG_SCHEMA => {
                match read_json::<ConfigData>(&event.data) {
                    Ok(sent) => self
                        .owner
                        .call(OP, move |state| state.introduce(session, &sent)),
                    Err(why) => return Ok(Err(Refused::unread(&why))),
                }
                .await?
            }
            MODULE_SEND_REQUIREMENTS => {
                match read_json::<ModuleRequirements>(&event.data) {
                    Ok(wanted) => self
                        .owner
                        .call(OP, move |state| state.require(session, &wanted)),
                    Err(why) => return Ok(Err(Refused::unread(&why))),
                }
                .await?
            }
            MODULE_READY => {
                match read_json::<BackendDeclaration>(&event.data) {
                    Ok(declared) => self
                        .owner
                        .call(OP, move |state| state.ready(session, declared)),
                    Err(why) => return Ok(Err(Refused::unread(&why))),
                }
                .await?
            }
            _ => {
                debug!(
                    event = brief(Printable(name)),
                    "an unknown event of a module"
                );
                return Ok(Ok(Bytes::new()));
            }
        };
        Ok(match done {
            Ok(()) => Ok(Bytes::from_static(OK)),
            Err(why) => Err(Refused::of(event, &why)),
        })
    }
}

impl Refused {
    /// Logs it, and the first ones of a connection as warnings: a peer that is refused again and again does not fill the log.
    fn log(&self, module: &str, event: &Message, nth: u64) {
        let event = brief(Printable(&String::from_utf8_lossy(&event.name)));
        let (module, why) = (brief(Printable(module)), &self.why);
        if nth <= MOST_WARNINGS {
            warn!(module, event, %why, "a module is refused");
        } else {
            debug!(module, event, %why, "a module is refused again");
        }
    }

    fn unread(why: &str) -> Self {
        Self {
            answer: format!("unmarshal event data: {why}"),
            why: "its data cannot be read".to_owned(),
        }
    }

    /// With the beginning that isp-config-service's texts have.
    fn of(event: &Message, why: &str) -> Self {
        let handler = match std::str::from_utf8(&event.name).unwrap_or_default() {
            MODULE_SEND_CONFIG_SCHEMA => "handle onModuleConfigSchema",
            MODULE_SEND_REQUIREMENTS => "handle onModuleRequirements",
            MODULE_READY => "handle onModuleReady",
            _ => "resolve module id",
        };
        Self {
            answer: format!("{handler}: {why}"),
            why: why.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::StreamExt;
    use tokio::io::{duplex, split};
    use tokio::task::JoinSet;
    use tokio::time::sleep;
    use tokio_util::codec::FramedRead;

    use super::*;
    use crate::etp::connection::open;
    use crate::etp::frame::{Frame, FrameCodec};
    use crate::etp::frame_writer::FrameWriter;
    use crate::etp::message::MOST_BYTES;
    use crate::server::limits::Limits;
    use crate::server::store::{InMemory, Kept};

    const ROUNDS: usize = 100;
    /// More than a stream has room for, so that the peer decides by what it reads how much is sent.
    const LARGE: usize = 1024;

    #[tokio::test(start_paused = true)]
    async fn however_much_is_asked_and_told_one_answer_waits_and_all_are_given() {
        let state = State::new(Limits::default(), Box::new(InMemory), Kept::default());
        let hour = Duration::from_secs(3600);
        let host = Host {
            owner: Owner::start(state, CancellationToken::new()).unwrap(),
            times: Times {
                ping_every: hour,
                silent_after: 3 * hour,
            },
            stop: CancellationToken::new(),
            in_flight: InFlight::new(0, 0),
            no_room: Arc::default(),
        };
        let (ours, peer) = duplex(LARGE / 4);
        let connection = open(ours, Role::Server, BytesMut::new(), host.times);
        let (reads, writes) = split(peer);
        let codec = FrameCodec::new(Role::Client, MOST_BYTES);
        let mut answers_and_lists = FramedRead::new(reads, codec);
        let mut events = FrameWriter::new(writes, Role::Client);
        let outbox = Outbox::default();
        let mut tasks = JoinSet::new();
        let served = outbox.clone();
        tasks.spawn(async move {
            let why = "x".repeat(LARGE);
            // Ends with the connection.
            let _ = host.follow(connection, &served, Err(&why), "m").await;
        });
        tasks.spawn(async move {
            for nth in 1.. {
                let event = Message::event("E", "").with_ack_id(nth);
                if events.send(Frame::Message(event.encode())).await.is_err() {
                    break;
                }
            }
        });
        let mut answers = 0;
        let is_answer = |frame: Option<Result<Frame, _>>| match frame {
            Some(Ok(Frame::Message(bytes))) => Message::decode(&bytes).unwrap().is_answer(),
            other => panic!("{:?}", other.map(|frame| frame.is_ok())),
        };
        for nth in 0..ROUNDS {
            let list: Arc<str> = format!("{nth}_MODULE_CONNECTED").into();
            let told = Message::event(list.as_bytes().to_vec(), vec![b'x'; LARGE]);
            outbox.event(&list, told.encode());
            answers += usize::from(is_answer(answers_and_lists.next().await));
            // All that can be done without another read is done.
            sleep(Duration::from_millis(1)).await;
            let waiting = outbox.waiting_answers();
            assert!(waiting <= 1, "{waiting} answers wait in round {nth}");
        }
        // What is told all the time holds up no answer.
        for _ in 0..2 * ROUNDS {
            answers += usize::from(is_answer(answers_and_lists.next().await));
        }
        assert!(answers >= ROUNDS, "{answers}");
        tasks.shutdown().await;
    }
}
