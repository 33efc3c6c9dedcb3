//! The path of one call: find an endpoint, send, and decide what a failure means.
//!
//! What may be sent again, in the order of the code (gRPC A6, with the same bounds):
//! - *Never sent*: no connection took the request. Always, and it does not count as an attempt.
//! - *Refused*: the server said that it did not look at the request. Any call: at once the first time, then with the same delays and bounds
//!   as what follows, marked or not.
//! - *Anything else that may pass*: only calls that are marked idempotent, a few times, elsewhere, after a delay, and not
//!   while most calls fail.
//!
//! An answer that is more than a bare status ends all that: it belongs to the caller. Its headers are one, or, as long as the
//! call may be sent again, what [`AnsweredBy`] says.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::header::USER_AGENT;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri};
use sd_core::balance::CallInfo;
use sd_core::retry::Backoff;
use tokio::time::{Instant, sleep};
use tonic::body::Body;
use tonic::{Code, Status};

use crate::answer::Answer;
use crate::config::ChannelConfig;
use crate::connection::{Connection, Unsent};
use crate::deadline::{self, GRPC_TIMEOUT, earlier, until};
use crate::event::Event;
use crate::incoming::Incoming;
use crate::instrument::Again;
use crate::observed::Observed;
use crate::options::{AnsweredBy, HashKey, Idempotent, WaitForReady};
use crate::permit::StreamPermit;
use crate::ready_set::{Condition, Pick, ReadySet, Tried};
use crate::request_body::{CallBody, RequestBody};
use crate::server_status::{self, Pushback};
use crate::shared::{Shared, Totals};
use crate::status;
use crate::subchannel::Subchannel;

const PREVIOUS_ATTEMPTS: HeaderName = HeaderName::from_static("grpc-previous-rpc-attempts");

/// What a policy is told of a call.
pub(crate) fn info(path: &str, hash_key: Option<HashKey>) -> CallInfo<'_> {
    let info = CallInfo::new().with_method(path);
    match hash_key {
        Some(HashKey(key)) => info.with_hash_key(key),
        None => info,
    }
}

/// Picks from `set`, and tells the driver of endpoints that need another connection.
pub(crate) fn pick(shared: &Shared, set: &ReadySet, info: &CallInfo<'_>, tried: &Tried) -> Pick {
    let mut full = Vec::new();
    let pick = set.pick(info, tried, &mut full);
    for subchannel in full {
        ask_for_more(shared, subchannel);
    }
    pick
}

fn ask_for_more(shared: &Shared, subchannel: Arc<Subchannel>) {
    let again = Arc::clone(&subchannel);
    if shared.events.try_send(Event::Grow { subchannel }).is_err() {
        // The driver is busy: another call will ask.
        again.may_grow();
    }
}

/// A call under way.
pub(crate) struct Call {
    shared: Arc<Shared>,
    path: PathAndQuery,
    headers: HeaderMap,
    observed: Observed,
    deadline: Option<Instant>,
    wait_for_ready: bool,
    hash_key: Option<HashKey>,
    /// Until when it may be sent again although a server has looked at it; `None` where it may not.
    answered_by: Option<AnsweredBy>,
    tried: Tried,
    /// Attempts that count.
    attempts: u32,
    /// How often it was given to a connection, for the numbers of its spans.
    sends: u32,
    /// A server refused the call once.
    refused: bool,
    backoff: Backoff,
}

/// What answers an idempotent call; `None` for one that is not.
fn answered_by(parts: &Parts, config: &ChannelConfig) -> Option<AnsweredBy> {
    let (extensions, path) = (&parts.extensions, parts.uri.path());
    let idempotent = extensions.get::<Idempotent>().is_some()
        || (!config.idempotent_methods.is_empty() && config.idempotent_methods.contains(path));
    if !idempotent {
        return None;
    }
    let said = extensions.get().copied();
    let method = || config.answered_by.get(path).copied();
    Some(said.or_else(method).unwrap_or_default())
}

/// How an attempt ended.
enum Outcome {
    Answer(Answer, StreamPermit),
    NeverSent(StreamPermit),
    /// It cannot be sent anywhere.
    Impossible(Status),
    Failed {
        failure: Failure,
        permit: StreamPermit,
        /// The server said that it did not look at the request.
        refused: bool,
        pushback: Option<Pushback>,
    },
}

impl Outcome {
    /// It ended here, with this status.
    fn failed(status: Status, permit: StreamPermit) -> Self {
        Self::Failed {
            failure: Failure::Status(status),
            permit,
            refused: false,
            pushback: None,
        }
    }
}

/// What an attempt got.
#[expect(
    clippy::large_enum_variant,
    reason = "an answer is moved twice, which is cheaper than to allocate it"
)]
enum Got {
    Answer(Answer),
    /// Of what is no gRPC server.
    Foreign(Code, String, Option<Pushback>),
}

/// What the caller gets if the call is not sent again.
#[expect(
    clippy::large_enum_variant,
    reason = "an answer is moved twice, which is cheaper than to allocate it"
)]
enum Failure {
    /// The server's own answer.
    Answer(Answer),
    Status(Status),
}

impl Failure {
    fn code(&self) -> Code {
        match self {
            Self::Answer(answer) => answer.code(),
            Self::Status(status) => status.code(),
        }
    }
}

impl Call {
    /// # Errors
    /// INTERNAL for what is no gRPC request.
    pub(crate) fn new(
        shared: Arc<Shared>,
        mut parts: Parts,
        mut observed: Observed,
    ) -> Result<Self, Status> {
        let config = &shared.config;
        let timeout = deadline::timeout_of(&parts.headers).or(config.default_deadline);
        let Some(path) = parts.uri.path_and_query().cloned() else {
            observed.ended(Code::Internal);
            return Err(Status::internal("a gRPC request must have a path"));
        };
        let answered_by = answered_by(&parts, config);
        let wait_for_ready = parts
            .extensions
            .get::<WaitForReady>()
            .map_or(config.wait_for_ready, |wait| wait.0);
        add_user_agent(&mut parts.headers, &shared.user_agent);
        Ok(Self {
            path,
            headers: parts.headers,
            deadline: timeout.and_then(|timeout| observed.began().checked_add(timeout)),
            observed,
            wait_for_ready,
            hash_key: parts.extensions.get().copied(),
            answered_by,
            tried: Tried::default(),
            attempts: 0,
            sends: 0,
            refused: false,
            backoff: Backoff::new(config.retry_first, config.retry_cap),
            shared,
        })
    }

    /// Runs the call. `first` is a place that was found already.
    pub(crate) async fn run(
        mut self,
        body: Body,
        first: Option<StreamPermit>,
    ) -> Result<Response<Body>, Status> {
        let done = self.run_until_answered(body, first).await;
        if let Err(status) = &done {
            self.observed.ended(status.code());
        }
        done
    }

    async fn run_until_answered(
        &mut self,
        body: Body,
        mut first: Option<StreamPermit>,
    ) -> Result<Response<Body>, Status> {
        let mut body = Some(body);
        let body = poll_fn(|cx| match body.take() {
            Some(body) => Poll::Ready(CallBody::read(body, &self.shared.replay_budget, cx)),
            None => Poll::Pending,
        })
        .await?;
        loop {
            let permit = match first.take() {
                Some(permit) => permit,
                None => self.find_place().await?,
            };
            let Some(attempt) = body.attempt() else {
                return Err(Status::internal(
                    "the streamed request can no longer be resent",
                ));
            };
            match self.send(permit, attempt, &body).await {
                Outcome::Answer(answer, permit) => {
                    body.commit();
                    let observed = self.observed.take();
                    return answer.into_response(
                        permit,
                        self.deadline,
                        self.attempts + 1,
                        observed,
                    );
                }
                Outcome::NeverSent(permit) => {
                    permit.closed();
                    self.tried.add(permit.target());
                    self.count_again(&permit, Again::NeverSent);
                }
                Outcome::Impossible(status) => return Err(status),
                Outcome::Failed {
                    failure,
                    mut permit,
                    refused,
                    pushback,
                } => {
                    permit.failed(failure.code());
                    self.tried.add(permit.target());
                    if refused && !self.refused && body.can_repeat() {
                        self.refused = true;
                        self.count_again(&permit, Again::Refused);
                        continue;
                    }
                    self.attempts += 1;
                    let Some(delay) = self.may_retry(failure.code(), refused, pushback, &body)
                    else {
                        body.commit();
                        return match failure {
                            Failure::Answer(answer) => answer.into_response(
                                permit,
                                self.deadline,
                                self.attempts,
                                self.observed.take(),
                            ),
                            Failure::Status(status) => Err(status),
                        };
                    };
                    self.count_again(&permit, Again::Retried);
                    drop((failure, permit));
                    sleep(delay).await;
                }
            }
        }
    }

    fn count_again(&self, permit: &StreamPermit, why: Again) {
        permit.target().counters().sent_again();
        Totals::count(&self.shared.totals.sent_again);
        self.shared.metrics.sent_again(why);
    }

    /// The delay before another attempt, if there may be one after `code`.
    fn may_retry(
        &mut self,
        code: Code,
        refused: bool,
        pushback: Option<Pushback>,
        body: &CallBody,
    ) -> Option<Duration> {
        let passes = refused
            || code == Code::Unavailable
            || (code == Code::ResourceExhausted && matches!(pushback, Some(Pushback::After(_))));
        if !passes {
            return None;
        }
        // Every failure that may pass counts, also of calls that are not sent again.
        self.shared.throttle.failed();
        if (self.answered_by.is_none() && !refused)
            || self.attempts >= self.shared.config.max_attempts
            || !body.can_repeat()
        {
            return None;
        }
        let delay = match pushback {
            Some(Pushback::Never) => return None,
            Some(Pushback::After(delay)) => delay,
            None => self.backoff.next_delay(),
        };
        let retry_at = Instant::now().checked_add(delay)?;
        let in_time = self.deadline.is_none_or(|deadline| retry_at < deadline);
        // Last: only what is sent again uses up what the throttle lets through.
        (in_time && self.shared.throttle.may_retry()).then_some(delay)
    }

    // --- Finding a place ------------------------------------------------------------------------------------------------

    /// Waits for an endpoint as long as its call may: for one that is full until the deadline, for one that is not there
    /// only as long as [`connect_wait`](crate::ChannelConfig::connect_wait). First come, first served.
    async fn find_place(&self) -> Result<StreamPermit, Status> {
        let published = &self.shared.published;
        let info = info(self.path.path(), self.hash_key);
        if published.waiting() == 0 {
            let set = published.set().load_full();
            if let Pick::On(connection) = pick(&self.shared, &set, &info, &self.tried) {
                return Ok(self.permit(connection));
            }
            self.check(&set.condition, !set.choice.is_empty()).await?;
        }
        let most = self.shared.config.max_waiting;
        let Some(_waiting) = published.wait(most) else {
            tokio::task::coop::consume_budget().await;
            return Err(status::too_many_wait(self.shared.service.as_str(), most));
        };
        let first = published.first().acquire();
        tokio::pin!(first);
        let mut is_first = None;
        let mut without_since = None;
        loop {
            let changed = published.changed().notified();
            let freed = published.freed().notified();
            tokio::pin!(changed, freed);
            // From here on no publishing and no place is missed.
            changed.as_mut().enable();
            if is_first.is_some() {
                // Only the first one is to be told of a place.
                freed.as_mut().enable();
            }
            let set = published.set().load_full();
            let mut full = !set.choice.is_empty();
            if is_first.is_some() {
                match pick(&self.shared, &set, &info, &self.tried) {
                    Pick::On(connection) => return Ok(self.permit(connection)),
                    Pick::Full => full = true,
                    Pick::None => full = false,
                }
            }
            self.check(&set.condition, full).await?;
            let patience = if full {
                without_since = None;
                None
            } else {
                let since = *without_since.get_or_insert_with(Instant::now);
                since
                    .checked_add(self.shared.config.connect_wait)
                    .filter(|_| !self.wait_for_ready)
            };
            let either = async {
                tokio::select! {
                    () = changed => {}
                    () = freed, if is_first.is_some() => {}
                    permit = &mut first, if is_first.is_none() => is_first = permit.ok(),
                }
            };
            let limit = earlier(self.deadline, patience);
            if until(limit, either).await.is_err() {
                return Err(self.waited_in_vain(&set.condition, full, limit));
            }
        }
    }

    /// Fails where there is nothing to wait for.
    async fn check(&self, condition: &Condition, full: bool) -> Result<(), Status> {
        let reason: &str = match condition {
            Condition::Closed { reason } => reason,
            Condition::Unusable { reason } if !self.wait_for_ready && !full => reason,
            _ => return Ok(()),
        };
        // Who calls in a loop must not keep the driver from its turn.
        tokio::task::coop::consume_budget().await;
        Err(status::no_endpoint(self.shared.service.as_str(), reason))
    }

    fn waited_in_vain(&self, condition: &Condition, full: bool, limit: Option<Instant>) -> Status {
        if full {
            return status::deadline_exceeded("while every connection was full", None);
        }
        let reason = condition.reason().unwrap_or(match condition {
            Condition::Unresolved { .. } => "the registry has not listed the instances yet",
            _ => "endpoints are still connecting",
        });
        if limit == self.deadline {
            let when = format_args!("while no endpoint was ready: {reason}");
            status::deadline_exceeded(when, None)
        } else {
            status::no_endpoint(self.shared.service.as_str(), reason)
        }
    }

    fn permit(&self, connection: Arc<Connection>) -> StreamPermit {
        StreamPermit::new(connection, Arc::clone(&self.shared))
    }

    // --- One attempt ------------------------------------------------------------------------------------------------------

    async fn send(
        &mut self,
        mut permit: StreamPermit,
        attempt: RequestBody,
        body: &CallBody,
    ) -> Outcome {
        let request = self.request(&permit);
        permit.target().counters().call();
        let label = || permit.target().label();
        self.sends += 1;
        let span = self.observed.attempt(label, self.sends);
        permit.trace(span);
        let response = match permit.send(request, attempt) {
            Ok(response) => response,
            Err(Unsent::Closed) => return Outcome::NeverSent(permit),
            Err(Unsent::TooLarge { bytes, limit }) => {
                let endpoint = permit.target().label();
                let status = status::headers_too_large(&endpoint, bytes, limit);
                return Outcome::Impossible(status);
            }
            Err(Unsent::Invalid(error)) => {
                return Outcome::Impossible(status::invalid_request(&error));
            }
        };
        let stream = response.stream_id().as_u32();
        // Whatever ends this attempt ends its request.
        let sending = body.sending();
        let config = &self.shared.config;
        // The last attempt may take all the time that is left.
        let is_last = self.answered_by.is_none() || self.attempts + 1 >= config.max_attempts;
        let patience = config
            .attempt_timeout
            .filter(|_| !is_last)
            .and_then(|timeout| Instant::now().checked_add(timeout));
        let limit = earlier(self.deadline, patience);
        let got = until(limit, async {
            let response = response.await.map_err(|error| (error, false))?;
            if let Some((code, why)) = server_status::foreign(&response) {
                let pushback = server_status::pushback_in(response.headers());
                return Ok(Got::Foreign(code, why, pushback));
            }
            let mut answer = Answer::new(response.map(Incoming::new), sending);
            // A server that has not got the whole request may be waiting for the rest of it.
            let read = match self.answered_by {
                Some(until) if !is_last && body.is_known() => {
                    answer.read(until, || permit.wait()).await
                }
                _ => Ok(()),
            };
            // After headers it was looked at.
            read.map_err(|error| (error, true))?;
            Ok(Got::Answer(answer))
        })
        .await;
        let attempts = self.attempts + 1;
        let (error, had_headers) = match got {
            Ok(Ok(Got::Answer(answer))) => return self.answered(answer, permit),
            Ok(Ok(Got::Foreign(code, why, pushback))) => {
                permit.turned_away();
                let status = status::foreign(code, &why, permit.info(attempts));
                return Outcome::Failed {
                    failure: Failure::Status(status),
                    permit,
                    refused: false,
                    pushback,
                };
            }
            Ok(Err(failed)) => failed,
            Err(deadline::Elapsed) => {
                permit.gave_up();
                let info = permit.info(attempts);
                let status = if limit == self.deadline {
                    status::deadline_exceeded("while waiting for an answer", Some(info))
                } else {
                    status::attempt_timed_out(info)
                };
                return Outcome::failed(status, permit);
            }
        };
        let info = permit.info(attempts);
        let wire = permit.connection().wire();
        if !had_headers && !error.is_reset() && !wire.was_written(stream) {
            return Outcome::NeverSent(permit);
        }
        // If h2 had to close the connection over headers, only the call that they were for is to blame.
        let is_ours = error.is_reset() || wire.last_headers() == stream;
        if error.is_library() && is_ours {
            return Outcome::failed(status::unreadable(error, info), permit);
        }
        if status::is_cancelled(&error) && deadline::may_have_passed(self.deadline) {
            let status = status::deadline_exceeded("at the server", Some(info));
            return Outcome::failed(status, permit);
        }
        let refused = !had_headers && status::is_refused(&error);
        if error.is_reset() && error.is_remote() {
            permit.turned_away();
        }
        let status = status::broken(error, permit.connection().close_reason(), info);
        Outcome::Failed {
            failure: Failure::Status(status),
            permit,
            refused,
            pushback: None,
        }
    }

    fn answered(&self, answer: Answer, mut permit: StreamPermit) -> Outcome {
        if answer.code() == Code::Cancelled && deadline::may_have_passed(self.deadline) {
            let info = permit.info(self.attempts + 1);
            return Outcome::failed(
                status::deadline_exceeded("at the server", Some(info)),
                permit,
            );
        }
        if let Some(code) = answer.known_code() {
            permit.judge(code);
        }
        if !matches!(answer.code(), Code::Unavailable | Code::ResourceExhausted) {
            self.shared.throttle.succeeded();
            return Outcome::Answer(answer, permit);
        }
        Outcome::Failed {
            pushback: answer.pushback(),
            failure: Failure::Answer(answer),
            permit,
            refused: false,
        }
    }

    fn request(&self, permit: &StreamPermit) -> Request<()> {
        let mut headers = self.headers.clone();
        let target = permit.target();
        if let Some(deadline) = self.deadline {
            let now = Instant::now();
            // What the caller set is true for a while.
            let fresh = now - self.observed.began() < Duration::from_millis(1);
            if !(fresh && headers.contains_key(GRPC_TIMEOUT)) {
                let left = deadline.saturating_duration_since(now);
                headers.insert(GRPC_TIMEOUT, deadline::header_value(left));
            }
        }
        if self.attempts > 0 {
            headers.insert(PREVIOUS_ATTEMPTS, HeaderValue::from(self.attempts));
        }
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(target.scheme());
        uri.authority = Some(target.authority());
        uri.path_and_query = Some(self.path.clone());
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        // All three parts are there.
        *request.uri_mut() = Uri::from_parts(uri).unwrap_or_default();
        *request.headers_mut() = headers;
        request
    }
}

/// Appends ours to the caller's, as tonic does.
fn add_user_agent(headers: &mut HeaderMap, ours: &HeaderValue) {
    let theirs = headers.insert(USER_AGENT, ours.clone());
    if let Some(theirs) = theirs {
        let both = [theirs.as_bytes(), b" ", ours.as_bytes()].concat();
        if let Ok(both) = HeaderValue::from_bytes(&both) {
            headers.insert(USER_AGENT, both);
        }
    }
}
