//! A call's place on a connection.

use std::sync::Arc;

use h2::client::ResponseFuture;
use http::Request;
use sd_core::balance::{LoadGuard, Outcome};
use tokio::time::Instant;
use tonic::Code;

use crate::connection::{Connection, Leave, Unsent};
use crate::event::Event;
use crate::observed::AttemptSpan;
use crate::options::AttemptInfo;
use crate::request_body::RequestBody;
use crate::shared::Shared;
use crate::target::Target;

/// Held from before a call is sent until its response has ended.
pub(crate) struct StreamPermit {
    connection: Arc<Connection>,
    /// Keeps the driver, and with it the connection, alive.
    shared: Arc<Shared>,
    /// Since when the call waits for the server; `None` while it does not.
    waits_since: Option<Instant>,
    /// What the server had sent by then.
    life: u64,
    /// Whether the endpoint serves or turns calls away was read from the answer's status.
    judged: bool,
    span: AttemptSpan,
    /// Tells the policy. Dropped after the place is left.
    load: Option<LoadGuard>,
}

impl StreamPermit {
    /// For a call that has [entered](Connection::enter).
    pub(crate) fn new(connection: Arc<Connection>, shared: Arc<Shared>) -> Self {
        let load = connection.target().load().cloned();
        let mut permit = Self {
            life: 0,
            judged: false,
            span: AttemptSpan::default(),
            load: None,
            connection,
            shared,
            waits_since: None,
        };
        // Only now: a policy that panics must not keep the place.
        permit.load = load.map(LoadGuard::begin);
        permit
    }

    pub(crate) fn target(&self) -> &Arc<Target> {
        self.connection.target()
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(crate) fn info(&self, attempts: u32) -> AttemptInfo {
        AttemptInfo {
            endpoint: self.target().label(),
            attempts,
        }
    }

    /// The attempt that begins lasts as long as this, or until another one begins.
    pub(crate) fn trace(&mut self, span: AttemptSpan) {
        self.span = span;
    }

    /// Sends the request, and waits for the server from here on.
    pub(crate) fn send(
        &mut self,
        request: Request<()>,
        body: RequestBody,
    ) -> Result<ResponseFuture, Unsent> {
        self.wait();
        let sent = self.connection.send(request, body);
        if sent.is_err() {
            self.waits_since = None;
        }
        sent
    }

    /// The connection takes nothing any more. Its task is about to find out.
    pub(crate) fn closed(&self) {
        if self.connection.is_open() {
            let go_away = self.connection.wire().go_away().cloned();
            let why = self.connection.wire().error();
            let broken = || Leave::Broken(why.unwrap_or("the connection was closed").to_owned());
            self.connection
                .leave(go_away.map_or_else(broken, Leave::GoAway));
        }
    }

    /// From here on the server's silence counts.
    pub(crate) fn wait(&mut self) {
        self.waits_since = Some(Instant::now());
        self.life = self.connection.wire().life();
    }

    /// The server did not answer as long as the call waited.
    pub(crate) fn gave_up(&mut self) {
        if let Some(since) = self.waits_since.take() {
            let limit = self.shared.config.silent_after;
            self.connection.got_nothing(since, self.life, limit);
        }
    }

    /// The answer has this status, which says whether the endpoint serves or turns calls away. Only the first one counts.
    pub(crate) fn judge(&mut self, code: Code) {
        if std::mem::replace(&mut self.judged, true) {
            return;
        }
        self.span.answered(code);
        match code {
            Code::Unavailable => self.turned_away(),
            _ => self.target().set_turned_away(0),
        }
    }

    /// The endpoint cannot serve, as it says itself.
    pub(crate) fn turned_away(&self) {
        let limit = self.shared.config.eject_after;
        let target = self.target();
        if target.turned_away() >= limit && limit > 0 && target.asks_for_ejection() {
            let event = Event::TurnsAway {
                target: Arc::clone(target),
            };
            if self.shared.events.try_send(event).is_err() {
                // The driver is busy: the next call that is turned away tells it.
                target.ejection_decided();
            }
        }
    }

    /// The call got its answer here.
    pub(crate) fn succeeded(&mut self) {
        self.span.answered(Code::Ok);
        self.tell(Outcome::Success);
    }

    /// The call's answer ended with this.
    pub(crate) fn answered(&mut self, code: Code) {
        self.judge(code);
        let cannot_serve = matches!(code, Code::Unavailable | Code::ResourceExhausted);
        self.tell(if cannot_serve {
            Outcome::Failure
        } else {
            Outcome::Success
        });
    }

    /// The call got no answer here.
    pub(crate) fn failed(&mut self, code: Code) {
        self.span.answered(code);
        self.target().counters().error();
        self.tell(Outcome::Failure);
    }

    fn tell(&mut self, outcome: Outcome) {
        self.waits_since = None;
        if let Some(load) = &mut self.load {
            load.tell(outcome);
        }
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        // A caller that drops its call has waited in vain, too.
        self.gave_up();
        self.connection.exit();
        self.shared.published.freed_place();
    }
}
