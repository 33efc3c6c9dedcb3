//! What each request passes before the API sees it: who asks, whether they may, how often they have asked; and what is noted of it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use axum::extract::MatchedPath;
use axum::response::IntoResponse;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, VARY,
    WWW_AUTHENTICATE,
};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::{Body as _, Incoming};
use metrics::{counter, histogram};
use sd_core::Printable;
use tokio::runtime::Handle;
use tokio::time::Instant;
use tokio_util::context::TokioContext;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tower_service::Service;
use tracing::info;

use super::api::{Failure, read_body};
use super::limits::{Bill, RequestRates};
use super::registrations::Caller;
use super::security::{Access, BrowserRules, Denied, Peer, Permission, Tokens};
use super::tls::Tls;

/// How long the body of a request may take.
const BODY_WITHIN: Duration = Duration::from_secs(10);
/// This much of a body, in either direction, counts as much as a request.
const BYTES_PER_REQUEST: usize = 16 * 1024;

/// What a reload may change.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) tokens: Option<Tokens>,
    pub(crate) tls: Option<Tls>,
    pub(crate) browsers: BrowserRules,
    pub(crate) connections: usize,
    pub(crate) requests_per_second: u32,
    pub(crate) access_log: bool,
    /// Is cancelled once these tokens no longer count.
    pub(crate) access: CancellationToken,
    /// Is cancelled once other issuers of client certificates count.
    pub(crate) clients: CancellationToken,
}

impl Settings {
    /// What the files of tokens and TLS say otherwise in `newer`. Files that are named in only one of both are none of these.
    pub(crate) fn changed_files(&self, newer: &Self) -> Vec<String> {
        let mut changed = Vec::new();
        if let (Some(before), Some(after)) = (&self.tokens, &newer.tokens) {
            let tokens = before.difference(after);
            changed.extend(tokens.map(|told| format!("tokens ({told})")));
        }
        if let (Some(before), Some(after)) = (&self.tls, &newer.tls) {
            changed.extend(before.difference(after).map(str::to_owned));
        }
        changed
    }

    /// What an operator should know of the files.
    pub(crate) fn notes(&self) -> impl Iterator<Item = &str> {
        self.tls.iter().filter_map(Tls::note)
    }
}

/// Stands before the API.
#[derive(Debug)]
pub(crate) struct Gate {
    router: Router,
    /// Where registrations are kept. Requests are handled where connections are, so that a flood of them leaves this one its turn.
    runtime: Handle,
    settings: ArcSwap<Settings>,
    most_body: usize,
    rates: Arc<RequestRates>,
    own_user: u32,
}

/// What is noted of a request.
struct Noted {
    method: String,
    path: String,
    caller: Option<Caller>,
}

impl Gate {
    pub(crate) fn new(
        router: Router,
        runtime: Handle,
        settings: Settings,
        most_body: usize,
    ) -> Self {
        Self {
            router: router.layer(axum::middleware::from_fn(tell_route)),
            runtime,
            settings: ArcSwap::from_pointee(settings),
            most_body,
            rates: Arc::default(),
            own_user: rustix::process::geteuid().as_raw(),
        }
    }

    pub(crate) fn settings(&self) -> Arc<Settings> {
        self.settings.load_full()
    }

    /// From the next request on these count. If there are other tokens, streams end: who still may read opens them again. If other issuers
    /// of client certificates count, connections over TLS end.
    pub(crate) fn change(&self, mut settings: Settings) {
        let before = self.settings();
        let ends_access = before.tokens != settings.tokens;
        if !ends_access {
            settings.access = before.access.clone();
        }
        let ends_clients = match (&before.tls, &settings.tls) {
            (Some(before), Some(now)) => now.refuses_clients_of(before),
            _ => false,
        };
        if !ends_clients {
            settings.clients = before.clients.clone();
        }
        self.settings.store(Arc::new(settings));
        if ends_access {
            before.access.cancel();
        }
        if ends_clients {
            before.clients.cancel();
        }
    }

    /// Answers one request that came by `connection`, which is cancelled once its client is no longer let in.
    pub(crate) async fn answer(
        &self,
        peer: Peer,
        connection: CancellationToken,
        request: Request<Incoming>,
    ) -> Response<Body> {
        let begin = Instant::now();
        let settings = self.settings();
        let access = Access::new(settings.access.clone(), connection);
        let mut noted = Noted {
            method: request.method().as_str().chars().take(16).collect(),
            path: request.uri().path().chars().take(256).collect(),
            caller: None,
        };
        let Ok(origin) = settings.browsers.allowed_origin(request.headers()) else {
            let failure = refusal(
                "origin",
                StatusCode::FORBIDDEN,
                "origin_refused",
                "web pages of this origin may not use the agent: see origins in its configuration",
            );
            return note(&settings, &noted, begin, failure.into_response());
        };
        let origin = origin.cloned();
        let answered = self
            .pass(
                &settings,
                (peer, access),
                origin.as_ref(),
                request,
                &mut noted,
            )
            .await;
        let mut response = answered.unwrap_or_else(IntoResponse::into_response);
        if response.status() == StatusCode::UNAUTHORIZED {
            let headers = response.headers_mut();
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(origin) = origin {
            let headers = response.headers_mut();
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(
                ACCESS_CONTROL_EXPOSE_HEADERS,
                HeaderValue::from_static("etag, location, retry-after"),
            );
            headers.insert(VARY, HeaderValue::from_static("origin"));
        }
        note(&settings, &noted, begin, response)
    }

    async fn pass(
        &self,
        settings: &Settings,
        (peer, access): (Peer, Access),
        page: Option<&HeaderValue>,
        request: Request<Incoming>,
        noted: &mut Noted,
    ) -> Result<Response<Body>, Failure> {
        let is_network = !matches!(peer, Peer::User(_));
        if is_network
            && !settings
                .browsers
                .allows_host(request.headers(), request.uri())
        {
            let failure = refusal(
                "host",
                StatusCode::FORBIDDEN,
                "host_refused",
                "the request asks for another host: see hosts in the agent's configuration",
            );
            return Err(failure);
        }
        let permission = Permission::of(
            peer,
            request.headers(),
            settings.tokens.as_ref(),
            self.own_user,
        );
        // It carries no token.
        let preflight_of = page.filter(|_| is_preflight(&request));
        // Those who show no good token are counted by where they come from.
        let asks: Arc<str> = match (preflight_of, &permission, peer) {
            // There are only as many as are listed.
            (Some(page), _, _) => format!("page:{}", page.to_str().unwrap_or_default()).into(),
            (None, Ok(permission), _) => Arc::clone(&permission.caller().0),
            (None, Err(_), Peer::Remote(ip)) => format!("ip:{ip}").into(),
            (None, Err(_), Peer::User(user)) => format!("uid:{user}").into(),
            (None, Err(_), Peer::Loopback) => "loopback".into(),
        };
        let path = request.uri().path();
        // All processes of a host may be one caller, and what watches over the agent is one of them. Guesses of tokens are counted.
        let is_probe = permission.is_ok() && matches!(path, "/healthz" | "/readyz");
        let counted: Arc<str> = match path {
            "/metrics" => format!("metrics:{asks}").into(),
            _ => asks,
        };
        let count = |cost: usize| {
            if cost == 0 {
                return Ok(());
            }
            let counted =
                self.rates
                    .take(&counted, cost, settings.requests_per_second, Instant::now());
            counted.map_err(|after| {
                let failure = refusal(
                    "rate",
                    StatusCode::TOO_MANY_REQUESTS,
                    "too_many_requests",
                    "too many requests: ask less often, or see limits.requests_per_second",
                );
                failure.retry_after(after)
            })
        };
        count(usize::from(!is_probe))?;
        if preflight_of.is_some() {
            return Ok(preflight());
        }
        let permission = permission.map_err(denied)?;
        noted.caller = Some(permission.caller().clone());
        permission
            .check(request.method(), request.uri().path())
            .map_err(denied)?;

        let (mut head, body) = request.into_parts();
        let body = read_body(Body::new(body), self.most_body, BODY_WITHIN).await?;
        count(body.len() / BYTES_PER_REQUEST)?;
        head.extensions.insert(permission.caller().clone());
        head.extensions.insert(permission);
        head.extensions.insert(access);
        let bill = Bill::new(&self.rates, &counted, settings.requests_per_second);
        head.extensions.insert(bill.clone());
        let mut router = self.router.clone();
        let request = Request::from_parts(head, Body::from(body));
        // Worked on here, beside the connections, while all that it begins, such as the task of a registration or the connection to the
        // registry, goes on on the runtime of the registrations.
        let handling = async move {
            let response = router.call(request).await?;
            // A list may be long: the next requests pay for it.
            let bytes = response.body().size_hint().exact().unwrap_or_default();
            bill.add(usize::try_from(bytes).unwrap_or(usize::MAX) / BYTES_PER_REQUEST);
            Ok::<_, Infallible>(response)
        };
        let handling = TokioContext::new(handling, self.runtime.clone());
        // A client that has gone takes its request with it.
        let handled = AbortOnDropHandle::new(tokio::spawn(handling));
        // It panicked, or the runtime ends.
        let Ok(Ok(response)) = handled.await else {
            return Err(Failure::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "the agent failed: its log says how",
            ));
        };
        Ok(response)
    }
}

/// A browser asks before it sends what a plain form could not.
fn is_preflight(request: &Request<Incoming>) -> bool {
    let headers = request.headers();
    request.method() == Method::OPTIONS && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

fn preflight() -> Response<Body> {
    let headers = [
        (ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, PUT, DELETE"),
        (
            ACCESS_CONTROL_ALLOW_HEADERS,
            "authorization, content-type, if-none-match, last-event-id",
        ),
        (ACCESS_CONTROL_MAX_AGE, "600"),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

fn refusal(reason: &'static str, status: StatusCode, code: &'static str, text: &str) -> Failure {
    counter!("sd_agent_refused_total", "reason" => reason).increment(1);
    Failure::new(status, code, text)
}

fn denied(why: Denied) -> Failure {
    let (status, code) = match why {
        Denied::NoToken | Denied::NoAdministrator => (StatusCode::UNAUTHORIZED, "token_needed"),
        Denied::UnknownToken => (StatusCode::UNAUTHORIZED, "token_unknown"),
        Denied::NoRight(_) => (StatusCode::FORBIDDEN, "right_missing"),
    };
    refusal("token", status, code, &why.to_string())
}

/// The route of a request, for what is counted of it: not its path, of which there are too many.
#[derive(Clone)]
struct Route(MatchedPath);

async fn tell_route(
    request: axum::extract::Request,
    next: axum::middleware::Next,
) -> axum::response::Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let mut response = next.run(request).await;
    if let Some(route) = route {
        response.extensions_mut().insert(Route(route));
    }
    response
}

fn note(
    settings: &Settings,
    noted: &Noted,
    begin: Instant,
    response: Response<Body>,
) -> Response<Body> {
    let took = begin.elapsed();
    let status = response.status().as_u16();
    let route = response.extensions().get::<Route>();
    let route = route.map_or("none", |route| route.0.as_str()).to_owned();
    counter!("sd_agent_requests_total", "route" => route.clone(), "status" => status.to_string())
        .increment(1);
    histogram!("sd_agent_request_seconds", "route" => route).record(took.as_secs_f64());
    if settings.access_log {
        let caller = noted.caller.as_ref().map_or("-", |caller| &caller.0);
        // What was asked for after a `?` is left out.
        info!(
            target: "access",
            method = %Printable(&noted.method),
            path = %Printable(&noted.path),
            status,
            caller = %Printable(caller),
            milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        );
    }
    response
}
