//! One connection over which both ends send events: its task, and the handles on it.
//!
//! The task reads and writes independently, so that two ends which both send a large message do not wait for each other. It ends the
//! connection when no byte moves for too long: TCP would notice a peer that is gone only minutes later.

use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use sd_core::{Error, Result};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::codec::FramedRead;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, warn};
use tungstenite::protocol::Role;

use crate::etp::acks::Acks;
use crate::etp::budget::{Budget, Events, Spent};
use crate::etp::ended::Ended;
use crate::etp::frame::{Frame, FrameCodec};
use crate::etp::frame_writer::FrameWriter;
use crate::etp::in_flight::{Account, Counting};
use crate::etp::message::{MOST_BYTES, Message};
use crate::etp::signs::{Noting, Signs};

/// Frames that wait to be written: a message, and a ping or a pong behind it. No more: a peer that reads slowly is better told what is new.
const OUTGOING: usize = 2;
/// Events that wait to be handled, if their bytes are within the budget. As long as there are so many, nothing more is read.
const INCOMING: usize = 4;
/// How long the peer may take to answer a close.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);
/// So many messages that are none end a connection.
const MOST_MALFORMED: u32 = 100;
/// How many of them are warned of.
const MOST_WARNINGS: u32 = 10;

/// The times of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// From one ping to the next.
    pub(crate) ping_every: Duration,
    /// The connection is over when no byte has come for about this long, although pings went out, and when the peer takes no byte of what
    /// waits for it for this long.
    pub(crate) silent_after: Duration,
}

/// A connection, which is closed when this is dropped.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) peer: Peer,
    /// The events of the peer, in the order in which they came. Ends with the connection.
    pub(crate) events: Events,
    _close: DropGuard,
}

/// The other end of a connection. A cheap clone, which does not keep the connection open.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    shared: Arc<Shared>,
    outgoing: mpsc::Sender<Outgoing>,
}

/// A frame that waits to be written. A message holds its bytes until it is.
#[derive(Debug)]
struct Outgoing {
    frame: Frame,
    _spent: Option<Spent>,
}

impl From<Frame> for Outgoing {
    fn from(frame: Frame) -> Self {
        Self {
            frame,
            _spent: None,
        }
    }
}

#[derive(Debug)]
struct Shared {
    acks: Acks,
    /// Of what waits to be written.
    budget: Budget,
    /// Of what all connections of a service have in memory. A client counts nothing.
    account: Option<Account>,
    signs: Arc<Signs>,
    /// Cancelled when this end wants to close.
    close: CancellationToken,
    ended: OnceLock<Ended>,
    /// Cancelled when `ended` is set.
    over: CancellationToken,
    /// Cancelled when the socket is gone.
    gone: CancellationToken,
    /// When a frame came last.
    heard: watch::Sender<Instant>,
    /// Whether what has come waits for its handler, so that nothing more is read.
    is_held_up: AtomicBool,
}

/// Makes a connection of a stream that has become a WebSocket. `read` is what came behind the answer to the upgrade already. Needs a
/// runtime.
pub(crate) fn open<S>(stream: S, role: Role, read: BytesMut, times: Times) -> Connection
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    open_counted(stream, role, read, times, None)
}

/// As [`open`], of a connection whose messages count in an account.
pub(crate) fn open_counted<S>(
    stream: S,
    role: Role,
    read: BytesMut,
    times: Times,
    account: Option<Account>,
) -> Connection
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let signs = Arc::new(Signs::new());
    let (reads, writes) = split(Noting::new(stream, read, Arc::clone(&signs)));
    let (outgoing, to_write) = mpsc::channel(OUTGOING);
    let (to_handle, events) = mpsc::channel(INCOMING);
    let shared = Arc::new(Shared {
        acks: Acks::default(),
        budget: Budget::new(),
        account: account.clone(),
        signs,
        close: CancellationToken::new(),
        ended: OnceLock::new(),
        over: CancellationToken::new(),
        gone: CancellationToken::new(),
        heard: watch::Sender::new(Instant::now()),
        is_held_up: AtomicBool::new(false),
    });
    let peer = Peer {
        shared: Arc::clone(&shared),
        outgoing: outgoing.clone(),
    };
    let close = shared.close.clone().drop_guard();
    let driver = Driver {
        over: Over(Arc::clone(&shared)),
        shared,
        sink: FrameWriter::new(writes, role),
        stream: FramedRead::new(
            reads,
            Counting::new(FrameCodec::new(role, MOST_BYTES), account),
        ),
        outgoing,
        to_write,
        to_handle,
        times,
    };
    tokio::spawn(driver.run());
    Connection {
        peer,
        events: Events::new(events),
        _close: close,
    }
}

impl Peer {
    /// Sends a message as soon as there is room for it. Cancel-safe: a dropped call sends nothing.
    ///
    /// # Errors
    /// The connection is over. `InvalidInput` if the message is larger than the peer reads.
    pub(crate) async fn send(&self, op: &'static str, message: &Message) -> Result<()> {
        self.send_encoded(op, message.encode()).await
    }

    /// As [`send`](Self::send), of a message that was encoded once for many peers.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub(crate) async fn send_encoded(&self, op: &'static str, encoded: Bytes) -> Result<()> {
        if encoded.len() > MOST_BYTES {
            let bytes = encoded.len();
            let why = format!(
                "the message has {bytes} bytes, and the other end reads at most {MOST_BYTES}"
            );
            return Err(Error::invalid_input(op, why));
        }
        let account = self.shared.account.as_ref();
        let part = account.and_then(|account| account.sending(&encoded));
        let sending = async {
            let spent = self.shared.budget.spend(encoded.len(), part).await;
            let message = Outgoing {
                frame: Frame::Message(encoded),
                _spent: Some(spent),
            };
            self.outgoing.send(message).await
        };
        let sent = tokio::select! {
            biased;
            ended = self.ended() => return Err(ended.error(op)),
            sent = sending => sent,
        };
        match sent {
            Ok(()) => Ok(()),
            Err(_) => Err(self.ended().await.error(op)),
        }
    }

    /// Sends an event and returns the answer to it, of whatever kind. The caller bounds the time. After a dropped call the event may
    /// have been sent.
    ///
    /// # Errors
    /// As [`send`](Self::send). A connection that ends meanwhile is told at once.
    pub(crate) async fn ask(
        &self,
        op: &'static str,
        event: &str,
        data: impl Into<Bytes>,
    ) -> Result<Bytes> {
        let mut pending = self.shared.acks.wait();
        let event = Message::event(event.to_owned(), data).with_ack_id(pending.id);
        self.send(op, &event).await?;
        tokio::select! {
            biased;
            answer = pending.answer() => Ok(answer),
            ended = self.ended() => Err(ended.error(op)),
        }
    }

    /// Answers an event, if its sender wants that.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub(crate) async fn answer(
        &self,
        op: &'static str,
        event: &Message,
        data: impl Into<Bytes>,
    ) -> Result<()> {
        if event.wants_answer() {
            self.send(op, &event.answer(data)).await?;
        }
        Ok(())
    }

    /// Begins to close the connection in order, after what was sent before. Idempotent.
    pub(crate) fn close(&self) {
        self.shared.close.cancel();
    }

    /// Closes the connection with this code, or without one, as only tests do.
    #[cfg(test)]
    pub(crate) async fn close_with(&self, close: Option<crate::etp::frame::Close>) {
        // Fails if the connection is over.
        let _ = self.outgoing.send(Frame::Close(close).into()).await;
    }

    /// Waits until the connection is over, and returns why. Cancel-safe.
    pub(crate) async fn ended(&self) -> Ended {
        self.shared.over.cancelled().await;
        match self.shared.ended.get() {
            Some(ended) => ended.clone(),
            // It is set before.
            None => pending().await,
        }
    }

    /// Whether the connection is over.
    pub(crate) fn is_over(&self) -> bool {
        self.shared.over.is_cancelled()
    }

    /// Waits until the peer has seen the close, or was given up. Cancel-safe.
    pub(crate) async fn gone(&self) {
        self.shared.gone.cancelled().await;
    }

    /// Asks for a sign of life, and waits until a frame comes. Cancel-safe.
    pub(crate) async fn sign_of_life(&self) {
        let mut heard = self.heard();
        // Without room the peer is about to be written to anyway, and the connection asks by itself now and then.
        let _ = self.outgoing.try_send(Frame::Ping(Bytes::new()).into());
        if heard.changed().await.is_err() {
            pending::<()>().await;
        }
    }

    /// When a frame came last, and each time that one comes.
    pub(crate) fn heard(&self) -> watch::Receiver<Instant> {
        self.shared.heard.subscribe()
    }
}

/// Tells that the connection is over, also where its runtime ends before its task.
struct Over(Arc<Shared>);

impl Over {
    fn tell(&self, ended: Ended) {
        // The first reason counts.
        let _ = self.0.ended.set(ended);
        self.0.over.cancel();
    }
}

impl Drop for Over {
    fn drop(&mut self) {
        self.tell(Ended::Lost(
            "the runtime of the connection has ended".to_owned(),
        ));
        self.0.gone.cancel();
    }
}

struct Driver<S> {
    over: Over,
    shared: Arc<Shared>,
    sink: Sink<S>,
    stream: Stream<S>,
    /// For pings, pongs and closes.
    outgoing: mpsc::Sender<Outgoing>,
    to_write: mpsc::Receiver<Outgoing>,
    to_handle: mpsc::Sender<(Message, Spent)>,
    times: Times,
}

type Sink<S> = FrameWriter<WriteHalf<Noting<S>>>;
type Stream<S> = FramedRead<ReadHalf<Noting<S>>, Counting>;

impl<S> Driver<S>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    async fn run(self) {
        let Self {
            over,
            shared,
            mut sink,
            mut stream,
            outgoing,
            mut to_write,
            to_handle,
            times,
        } = self;
        let limit = times.silent_after;
        let ended = tokio::select! {
            ended = read(&mut stream, &shared, &outgoing, to_handle) => ended,
            ended = write(&mut sink, &mut to_write, &shared.signs, limit) => ended,
            ended = ping(&shared, &outgoing, times) => ended,
            () = shared.close.cancelled() => Ended::Here,
            () = has_no_room(shared.account.as_ref()) => Ended::NoRoom,
        };
        debug!(%ended, "a connection of isp modules is over");
        over.tell(ended.clone());
        if ended == Ended::NoRoom {
            drop(to_write);
            give_up(sink, stream, &ended).await;
            return;
        }
        if ended.can_be_told() {
            let closing = close(&mut sink, &mut stream, &mut to_write, &ended);
            // Whether the peer still listens is not known.
            let _ = timeout(CLOSE_WITHIN, closing).await;
        }
        if ended.leaves_unread() {
            let reading = read_away(sink.into_inner(), stream.into_inner());
            let _ = timeout(CLOSE_WITHIN, reading).await;
        }
    }
}

/// Waits until the memory that the connection takes is needed by others.
async fn has_no_room(account: Option<&Account>) {
    match account {
        Some(account) => account.ended().await,
        None => pending().await,
    }
}

/// Frees at once what is half sent and half received. A peer in the midst of a message that it takes cannot be told why.
async fn give_up<S>(mut sink: Sink<S>, stream: Stream<S>, ended: &Ended)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let reads = stream.into_inner();
    if !sink.is_done() {
        return;
    }
    let telling = async {
        if sink.send(Frame::Close(ended.close())).await.is_ok() {
            read_away(sink.into_inner(), reads).await;
        }
    };
    let _ = timeout(CLOSE_WITHIN, telling).await;
}

/// Writes what was sent before, and the close. Waits for that of the peer, unless it has come.
async fn close<S>(
    sink: &mut Sink<S>,
    stream: &mut Stream<S>,
    to_write: &mut mpsc::Receiver<Outgoing>,
    ended: &Ended,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    to_write.close();
    while let Some(waiting) = to_write.recv().await {
        if sink.send(waiting.frame).await.is_err() {
            return;
        }
    }
    if sink.send(Frame::Close(ended.close())).await.is_err() {
        return;
    }
    if *ended == Ended::Here {
        while let Some(Ok(frame)) = stream.next().await {
            if matches!(frame, Frame::Close(_)) {
                return;
            }
        }
    }
}

/// Reads away what the peer has sent beyond what ended the connection: left unread, it would reset the connection, and the close that says
/// why would be lost.
async fn read_away(mut writes: impl AsyncWrite + Unpin, mut reads: impl AsyncRead + Unpin) {
    let mut rest = vec![0; 16 * 1024];
    if writes.shutdown().await.is_ok() {
        while matches!(reads.read(&mut rest).await, Ok(1..)) {}
    }
}

/// Reads until the connection is over.
async fn read<S>(
    stream: &mut Stream<S>,
    shared: &Shared,
    outgoing: &mpsc::Sender<Outgoing>,
    to_handle: mpsc::Sender<(Message, Spent)>,
) -> Ended
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let budget = Budget::new();
    let mut malformed = 0;
    loop {
        let frame = match stream.next().await {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return error.into(),
            None => return Ended::Lost("it ended without a close".to_owned()),
        };
        shared.heard.send_replace(Instant::now());
        match frame {
            Frame::Message(bytes) => match Message::decode(&bytes) {
                Ok(message) if message.is_answer() => {
                    shared.acks.answered(message.ack_id, message.data);
                }
                Ok(message) => {
                    // Nothing is read meanwhile, which holds the peer back.
                    shared.is_held_up.store(true, Ordering::Relaxed);
                    let part = stream.decoder_mut().take();
                    let spent = budget.spend(bytes.len(), part).await;
                    // Fails if no one handles events any more.
                    let _ = to_handle.send((message, spent)).await;
                    shared.signs.came();
                    shared.is_held_up.store(false, Ordering::Relaxed);
                    shared.heard.send_replace(Instant::now());
                }
                Err(_) => {
                    malformed += 1;
                    let bytes = bytes.len();
                    if malformed <= MOST_WARNINGS {
                        warn!(bytes, "a message of isp modules is malformed");
                    } else {
                        debug!(bytes, "another message of isp modules is malformed");
                    }
                    if malformed >= MOST_MALFORMED {
                        return Ended::Broken("too many messages are malformed");
                    }
                }
            },
            // Without room there is enough to write to show that this end lives.
            Frame::Ping(data) => drop(outgoing.try_send(Frame::Pong(data).into())),
            Frame::Pong(_) => {}
            Frame::Close(close) => return Ended::ByPeer(close),
        }
    }
}

/// Writes until that fails.
async fn write<S>(
    sink: &mut Sink<S>,
    to_write: &mut mpsc::Receiver<Outgoing>,
    signs: &Signs,
    not_taken_after: Duration,
) -> Ended
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(Outgoing { frame, _spent }) = to_write.recv().await {
        tokio::select! {
            biased;
            sent = sink.send(frame) => if let Err(error) = sent {
                return error.into();
            },
            () = nothing_is_taken(signs, not_taken_after) => return Ended::NotTaken(not_taken_after),
        }
    }
    // The driver itself holds a sender.
    pending().await
}

/// Waits until the peer has taken no byte for this long.
async fn nothing_is_taken(signs: &Signs, limit: Duration) {
    let mut since = Instant::now();
    loop {
        sleep_until(since + limit).await;
        let taken = signs.taken();
        if taken <= since {
            return;
        }
        since = taken;
    }
}

/// Asks for a sign of life now and then, with a number that a peer in Go would use as well, until so many questions in a row had no
/// answer that the peer was silent for long enough. Questions are counted, not time: a process that was stopped, or waited for a processor,
/// has not asked meanwhile.
async fn ping(shared: &Shared, outgoing: &mpsc::Sender<Outgoing>, times: Times) -> Ended {
    let mut ticks = interval(times.ping_every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first one is at once.
    ticks.tick().await;
    let (mut asked_at, mut unanswered) = (None, 0);
    for number in 1_u64.. {
        ticks.tick().await;
        let alive_at = shared.signs.last();
        let is_silent = asked_at.is_some_and(|asked_at| alive_at < asked_at)
            && !shared.is_held_up.load(Ordering::Relaxed);
        unanswered = if is_silent { unanswered + 1 } else { 0 };
        if times.ping_every * (unanswered + 1) >= times.silent_after {
            return Ended::Silent(times.silent_after);
        }
        // Without room nothing is asked: the peer must take what waits, within its own limit.
        if outgoing
            .try_send(Frame::Ping(number.to_string().into()).into())
            .is_ok()
        {
            asked_at = Some(Instant::now());
        }
    }
    pending().await
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{DuplexStream, duplex};

    use super::*;
    use crate::etp::frame::Close;

    const OP: &str = "test";
    const TIMES: Times = Times {
        ping_every: Duration::from_secs(2),
        silent_after: Duration::from_secs(6),
    };

    fn pair() -> (Connection, Connection) {
        let (a, b) = duplex(64 * 1024);
        (
            open(a, Role::Client, BytesMut::new(), TIMES),
            open(b, Role::Server, BytesMut::new(), TIMES),
        )
    }

    /// A client whose server is written by hand.
    fn by_hand() -> (Connection, DuplexStream) {
        let (a, b) = duplex(64 * 1024);
        (open(a, Role::Client, BytesMut::new(), TIMES), b)
    }

    async fn write(server: &mut DuplexStream, frame: Frame) {
        let mut bytes = BytesMut::new();
        let mut codec = FrameCodec::new(Role::Server, MOST_BYTES);
        let rest = codec.write(frame, &mut bytes).unwrap();
        bytes.extend_from_slice(&rest);
        server.write_all(&bytes).await.unwrap();
    }

    fn text(text: &str) -> Frame {
        Frame::Message(Bytes::copy_from_slice(text.as_bytes()))
    }

    #[tokio::test(start_paused = true)]
    async fn events_come_in_order_and_an_answer_to_who_asked() {
        let (client, mut server) = pair();
        let echo = async {
            while let Some(event) = server.events.recv().await {
                let data = event.data.clone();
                server.peer.answer(OP, &event, data).await.unwrap();
            }
        };
        let asking = async {
            let both = tokio::join!(
                client.peer.ask(OP, "E", "one"),
                client.peer.ask(OP, "E", "two")
            );
            assert_eq!(
                (both.0.unwrap(), both.1.unwrap()),
                ("one".into(), "two".into())
            );
            assert_eq!(client.peer.ask(OP, "E", "").await.unwrap(), "");
        };
        tokio::select! {
            () = asking => {}
            () = echo => panic!("the server's events ended"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_handler_may_ask_back_on_the_same_connection() {
        let (client, mut server) = pair();
        let mut client_events = client.events;
        let answering = async {
            let event = server.events.recv().await.unwrap();
            let back = server
                .peer
                .ask(OP, "back", event.data.clone())
                .await
                .unwrap();
            server.peer.answer(OP, &event, back).await.unwrap();
        };
        let back = async {
            let event = client_events.recv().await.unwrap();
            client.peer.answer(OP, &event, "echo").await.unwrap();
        };
        let (answer, (), ()) = tokio::join!(client.peer.ask(OP, "E", "x"), answering, back);
        assert_eq!(answer.unwrap(), "echo");
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_an_answer_is_told_at_once_that_the_connection_is_over() {
        let (client, server) = pair();
        let before = Instant::now();
        let (answer, ()) = tokio::join!(client.peer.ask(OP, "E", "x"), async {
            drop(server);
        });
        let report = answer.unwrap_err().report().to_string();
        assert!(report.contains("closed the connection: 1000"), "{report}");
        assert!(before.elapsed() < Duration::from_millis(10));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_sent_before_a_close_arrives_and_both_ends_are_gone() {
        let (client, mut server) = pair();
        for number in 0..10 {
            let event = Message::event(format!("E{number}"), "");
            client.peer.send(OP, &event).await.unwrap();
        }
        client.peer.close();
        client.peer.close();
        for number in 0..10 {
            let event = server.events.recv().await.unwrap();
            assert_eq!(event.name, format!("E{number}"));
        }
        assert!(server.events.recv().await.is_none());
        assert!(server.peer.ended().await.is_normal());
        client.peer.gone().await;
        assert_eq!(client.peer.ended().await, Ended::Here);
        assert!(
            client
                .peer
                .send(OP, &Message::event("E", ""))
                .await
                .is_err()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_hundred_clients_that_ask_for_it_are_closed_in_order_and_can_be_told_nothing_more() {
        let clients = (0..100).map(|_| asks_to_be_closed());
        futures_util::future::join_all(clients).await;
    }

    async fn asks_to_be_closed() {
        let (mut client, mut server) = pair();
        let event = |name: &'static str| Message::event(name, "");
        server.peer.send(OP, &event("hello")).await.unwrap();
        assert_eq!(client.events.recv().await.unwrap().name, "hello");
        client.peer.send(OP, &event("closeMe")).await.unwrap();
        assert_eq!(server.events.recv().await.unwrap().name, "closeMe");
        server.peer.close();
        assert!(client.peer.ended().await.is_normal());
        assert_eq!(server.peer.ended().await, Ended::Here);
        tokio::join!(client.peer.gone(), server.peer.gone());
        for peer in [&client.peer, &server.peer] {
            let after = peer.send(OP, &event("E")).await;
            assert_eq!(after.unwrap_err().kind(), sd_core::ErrorKind::Unavailable);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_connection_lives_by_its_pings() {
        let (client, server) = pair();
        tokio::time::sleep(100 * TIMES.silent_after).await;
        assert!(!client.peer.is_over() && !server.peer.is_over());
        assert!(client.peer.heard().borrow().elapsed() <= TIMES.ping_every);
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_was_stopped_for_long_gives_no_peer_up_for_that() {
        let (client, server) = pair();
        tokio::time::sleep(Duration::from_secs(3)).await;
        // Of all that is due now, the deadline is not first.
        tokio::time::advance(10 * TIMES.silent_after).await;
        tokio::time::sleep(3 * TIMES.silent_after).await;
        assert!(!client.peer.is_over() && !server.peer.is_over());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_handler_is_no_silent_peer() {
        let (mut client, mut server) = by_hand();
        for _ in 0..2 * INCOMING {
            write(&mut server, text("E||0")).await;
        }
        tokio::time::sleep(10 * TIMES.silent_after).await;
        for _ in 0..2 * INCOMING {
            client.events.recv().await.unwrap();
        }
        assert!(!client.peer.is_over());
    }

    #[tokio::test(start_paused = true)]
    async fn few_messages_wait_here_and_the_rest_with_the_peer() {
        let (a, b) = duplex(1024);
        let client = open(a, Role::Client, BytesMut::new(), TIMES);
        let server = open(b, Role::Server, BytesMut::new(), TIMES);
        let event = Message::event("E", vec![b'x'; 1024 * 1024]);
        let mut sent = 0;
        let sending = async {
            loop {
                server.peer.send(OP, &event).await.unwrap();
                sent += 1;
            }
        };
        // No one handles what comes.
        timeout(Duration::from_secs(5), sending).await.unwrap_err();
        // On each side 4 MiB wait, and one message more is being read.
        assert!(sent <= 9, "{sent}");
        assert!(!client.peer.is_over());
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_says_nothing_is_given_up_in_time() {
        let (client, _server) = by_hand();
        let before = Instant::now();
        assert_eq!(client.peer.ended().await, Ended::Silent(TIMES.silent_after));
        assert_eq!(before.elapsed(), TIMES.silent_after);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_is_given_up_although_it_talks() {
        let (a, mut server) = duplex(16);
        let client = open(a, Role::Client, BytesMut::new(), TIMES);
        let large = Message::event("E", vec![b'x'; 1024]);
        client.peer.send(OP, &large).await.unwrap();
        let talking = async {
            loop {
                write(&mut server, Frame::Pong(Bytes::new())).await;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        let ended = tokio::select! {
            ended = client.peer.ended() => ended,
            () = talking => unreachable!(),
        };
        assert_eq!(ended, Ended::NotTaken(TIMES.silent_after));
    }

    /// Passes on 1 KiB in each tenth of a second, so that a message of 100 KiB takes longer than a peer may be silent.
    fn over_a_slow_link() -> (Connection, DuplexStream) {
        let (ours, mut near) = duplex(1024);
        let (mut far, theirs) = duplex(1024);
        tokio::spawn(async move {
            let (mut from_near, mut to_near) = split(&mut near);
            let (mut from_far, mut to_far) = split(&mut far);
            tokio::join!(
                pass_slowly(&mut from_near, &mut to_far),
                pass_slowly(&mut from_far, &mut to_near)
            );
        });
        (open(ours, Role::Client, BytesMut::new(), TIMES), theirs)
    }

    async fn pass_slowly(from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin)) {
        let mut bytes = [0; 1024];
        while let Ok(read @ 1..) = from.read(&mut bytes).await {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if to.write_all(&bytes[..read]).await.is_err() {
                return;
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_message_that_comes_slowly_is_a_sign_of_life() {
        let (mut client, mut server) = over_a_slow_link();
        let before = Instant::now();
        let large = Frame::Message(Message::event("E", vec![b'x'; 100 * 1024]).encode());
        tokio::select! {
            () = write(&mut server, large) => {}
            ended = client.peer.ended() => panic!("{ended}"),
        }
        let event = client.events.recv().await.unwrap();
        assert_eq!(event.data.len(), 100 * 1024);
        assert!(before.elapsed() > TIMES.silent_after);
        // Then it says nothing more.
        let quiet = Instant::now();
        assert_eq!(client.peer.ended().await, Ended::Silent(TIMES.silent_after));
        assert!(quiet.elapsed() <= TIMES.silent_after + TIMES.ping_every);
    }

    /// As isp-config-service, which asks for no sign of life by itself.
    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_a_large_message_slowly_is_alive_although_it_says_nothing() {
        let (client, mut server) = over_a_slow_link();
        let before = Instant::now();
        let large = Message::event("E", vec![b'x'; 100 * 1024]);
        client.peer.send(OP, &large).await.unwrap();
        let mut taken = vec![0; 100 * 1024];
        tokio::select! {
            read = server.read_exact(&mut taken) => drop(read.unwrap()),
            ended = client.peer.ended() => panic!("{ended}"),
        }
        assert!(before.elapsed() > TIMES.silent_after);
        // Then it takes nothing more.
        client.peer.send(OP, &large).await.unwrap();
        let quiet = Instant::now();
        let ended = client.peer.ended().await;
        let limit = TIMES.silent_after;
        assert!(
            ended == Ended::NotTaken(limit) || ended == Ended::Silent(limit),
            "{ended}"
        );
        assert!(quiet.elapsed() <= limit + TIMES.ping_every);
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_for_a_handler_or_a_peer_has_few_bytes_and_leaves_none_behind() {
        let (a, b) = duplex(1024);
        let mut client = open(a, Role::Client, BytesMut::new(), TIMES);
        let mut server = open(b, Role::Server, BytesMut::new(), TIMES);
        let event = Message::event("E", vec![b'x'; 3 * 1024 * 1024]);
        let mut sent = 0;
        let sending = async {
            loop {
                server.peer.send(OP, &event).await.unwrap();
                sent += 1;
            }
        };
        timeout(Duration::from_secs(5), sending).await.unwrap_err();
        // One waits here, one was read behind it, and one waits at the server.
        assert!(sent <= 3, "{sent}");
        for _ in 0..sent {
            client.events.recv().await.unwrap();
        }
        let echo = tokio::join!(client.peer.send(OP, &event), server.events.recv());
        assert_eq!(echo.1.unwrap().data.len(), event.data.len());
    }

    #[tokio::test(start_paused = true)]
    async fn a_malformed_message_is_passed_over_and_many_end_the_connection() {
        let (mut client, mut server) = by_hand();
        for bytes in ["justname", "E||x||y", "E||1||good"] {
            write(&mut server, text(bytes)).await;
        }
        assert_eq!(client.events.recv().await.unwrap().data, "good");
        for _ in 0..MOST_MALFORMED {
            write(&mut server, text("justname")).await;
        }
        assert!(matches!(client.peer.ended().await, Ended::Broken(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn pings_are_answered_with_what_they_say_and_closes_are_repeated() {
        let (client, mut server) = by_hand();
        write(&mut server, Frame::Ping(Bytes::from_static(b"17"))).await;
        write(&mut server, Frame::Close(Some(Close::new(4000, "why")))).await;
        let mut written = Vec::new();
        server.read_to_end(&mut written).await.unwrap();
        let mut codec = FrameCodec::new(Role::Server, MOST_BYTES);
        let mut written = BytesMut::from(&written[..]);
        let mut frames = Vec::new();
        while let Some(frame) =
            tokio_util::codec::Decoder::decode(&mut codec, &mut written).unwrap()
        {
            frames.push(frame);
        }
        assert_eq!(
            frames,
            [
                Frame::Pong(Bytes::from_static(b"17")),
                Frame::Close(Some(Close::new(4000, "why")))
            ]
        );
        let ended = client.peer.ended().await;
        assert_eq!(ended, Ended::ByPeer(Some(Close::new(4000, "why"))));
    }

    #[tokio::test]
    async fn four_mebibytes_pass_and_one_byte_more_is_refused_at_both_ends() {
        let (client, mut server) = pair();
        let name = "E||0||".len();
        let most = Message::event("E", vec![b'x'; MOST_BYTES - name]);
        client.peer.send(OP, &most).await.unwrap();
        assert_eq!(
            server.events.recv().await.unwrap().data.len(),
            MOST_BYTES - name
        );
        let more = Message::event("E", vec![b'x'; MOST_BYTES - name + 1]);
        let error = client.peer.send(OP, &more).await.unwrap_err();
        assert_eq!(error.kind(), sd_core::ErrorKind::InvalidInput);
        // A peer that does not ask itself.
        let unchecked = Frame::Message(more.encode());
        client.peer.outgoing.send(unchecked.into()).await.unwrap();
        assert_eq!(server.peer.ended().await, Ended::TooLarge(MOST_BYTES));
        let Ended::ByPeer(Some(close)) = client.peer.ended().await else {
            panic!("{:?}", client.peer.ended().await);
        };
        assert_eq!(
            (close.code, &close.reason[..]),
            (1009, &b"read limited at 4194305 bytes"[..])
        );
    }

    #[tokio::test]
    async fn two_ends_that_both_send_much_do_not_wait_for_each_other() {
        let (mut client, mut server) = pair();
        let large = Message::event("E", vec![b'x'; MOST_BYTES / 2]);
        tokio::try_join!(client.peer.send(OP, &large), server.peer.send(OP, &large)).unwrap();
        let both = tokio::join!(client.events.recv(), server.events.recv());
        assert!(both.0.is_some() && both.1.is_some());
    }

    #[test]
    fn a_connection_whose_runtime_ends_is_over() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let (client, _server) = runtime.block_on(async { by_hand() });
        drop(runtime);
        assert!(client.peer.is_over());
    }
}
