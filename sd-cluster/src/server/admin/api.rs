//! What requests do.

use std::net::IpAddr;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, ETAG, IF_MATCH};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;
use sd_core::{Error, ErrorKind};
use serde::Serialize;

use super::access::{Admin, Need};
use super::body::{
    Failed, ModuleBody, Target, VariableBody, VersionBody, Written, WrittenVariable,
};
use super::log::Log;
use crate::server::ConfigService;
use crate::server::state::{Author, MOST_DATA_BYTES, State};

type Answer = Response<Full<Bytes>>;

/// Why a request is not answered as it wished.
struct Failure(StatusCode, String);

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = match error.kind() {
            ErrorKind::InvalidInput => StatusCode::BAD_REQUEST,
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::Conflict => StatusCode::CONFLICT,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self(status, error.report().to_string())
    }
}

/// Answers a request of `peer`.
pub(super) async fn answer(
    service: &ConfigService,
    admin: &Admin,
    peer: IpAddr,
    request: Request<Incoming>,
) -> Answer {
    match handled(service, admin, peer, request).await {
        Ok(answer) => answer,
        Err(Failure(status, error)) => {
            let mut answer = json(&Failed { error });
            *answer.status_mut() = status;
            answer
        }
    }
}

async fn handled(
    service: &ConfigService,
    admin: &Admin,
    peer: IpAddr,
    request: Request<Incoming>,
) -> Result<Answer, Failure> {
    let (head, body) = request.into_parts();
    let path: Option<Vec<String>> = head.uri.path().split('/').skip(1).map(decoded).collect();
    let path = path.ok_or_else(unknown)?;
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let need = match path[..] {
        ["v1", "modules" | "routes"] | ["v1", "modules", _] | ["internal", ..]
            if head.method == Method::GET =>
        {
            Need::Look
        }
        _ => Need::Token,
    };
    let allowed = admin.check(peer, &head.headers, need);
    allowed.map_err(|(status, why)| Failure(status, why.to_owned()))?;
    match (head.method.as_str(), &path[..]) {
        ("GET", ["v1", "modules"]) => {
            let modules = service.modules().await?;
            Ok(json(
                &modules.iter().map(ModuleBody::from).collect::<Vec<_>>(),
            ))
        }
        ("GET", ["v1", "modules", name]) => {
            Ok(json(&ModuleBody::from(&service.module(name).await?)))
        }
        ("DELETE", ["v1", "modules", name]) => {
            let name = (*name).to_owned();
            let log = Log::of(peer, "deletes a module", &name);
            let delete = move |state: &mut State| log.tell(state.delete_module(&name));
            service.call(delete).await?;
            Ok(nothing())
        }
        ("GET", ["v1", "modules", name, "config"]) => {
            let configs = service.configs(name).await?;
            let newest = configs.first().ok_or_else(unknown)?;
            let mut answer = verbatim(newest.data());
            let tag = HeaderValue::try_from(format!("\"{}\"", newest.version()));
            answer.headers_mut().extend(tag.ok().map(|tag| (ETAG, tag)));
            Ok(answer)
        }
        ("PUT", ["v1", "modules", name, "config"]) => {
            let expected = expected(&head.headers)?;
            let config = read(body).await?;
            let is_forced = is_forced(head.uri.query());
            let written = set_config(service, peer, name, &config, (expected, is_forced)).await?;
            Ok(json(&written))
        }
        ("GET", ["v1", "modules", name, "config", "versions"]) => {
            let configs = service.configs(name).await?;
            Ok(json(
                &configs.iter().map(VersionBody::from).collect::<Vec<_>>(),
            ))
        }
        ("POST", ["v1", "modules", name, "config", "resend"]) => {
            let name = (*name).to_owned();
            let log = Log::of(peer, "sends a module its configuration again", &name);
            let resend = move |state: &mut State| log.tell(state.resend_config(&name));
            service.call(resend).await?;
            Ok(nothing())
        }
        ("GET", ["v1", "modules", name, "schema"]) => {
            let schema = service.module(name).await?.schema;
            Ok(verbatim(&schema.ok_or_else(unknown)?))
        }
        ("GET", ["v1", "routes"]) => Ok(json(&service.routes().await?)),
        ("GET", ["v1", "variables"]) => {
            let variables = service.variables().await?;
            Ok(json(
                &variables.iter().map(VariableBody::from).collect::<Vec<_>>(),
            ))
        }
        ("PUT", ["v1", "variables", name]) => {
            let body = read(body).await?;
            // An error of serde's would repeat the value.
            let written: WrittenVariable = serde_json::from_slice(&body).map_err(|_| {
                bad(
                    r#"send {"kind":"TEXT","value":"…","description":"…"}, or the kind SECRET"#
                        .to_owned(),
                )
            })?;
            let name = (*name).to_owned();
            let log = Log::of(peer, "sets a variable", &name);
            let set = move |state: &mut State| log.tell(state.set_variable(&name, written.into()));
            service.call(set).await?;
            Ok(nothing())
        }
        ("DELETE", ["v1", "variables", name]) => {
            let name = (*name).to_owned();
            let log = Log::of(peer, "deletes a variable", &name);
            let delete = move |state: &mut State| log.tell(state.delete_variable(&name));
            service.call(delete).await?;
            Ok(nothing())
        }
        ("GET", ["internal", "metrics", "autodiscovery"]) => {
            let targets = service.metrics_targets().await?;
            Ok(json(&targets.iter().map(Target::from).collect::<Vec<_>>()))
        }
        _ => Err(unknown()),
    }
}

async fn set_config(
    service: &ConfigService,
    peer: IpAddr,
    module: &str,
    config: &[u8],
    (expected, is_forced): (Option<u32>, bool),
) -> Result<Written, Failure> {
    let config = std::str::from_utf8(config);
    let config = config.map_err(|_| bad("the configuration is not UTF-8".to_owned()))?;
    let (what, author) = if is_forced {
        let what = "sets the configuration of a module by force";
        (what, Author::OperatorByForce)
    } else {
        ("sets the configuration of a module", Author::Operator)
    };
    let log = Log::of(peer, what, module);
    let (module, config) = (module.to_owned(), config.to_owned());
    let set = move |state: &mut State| {
        log.tell_version(state.set_config(&module, &config, expected, author))
    };
    let version = service.call(set).await?;
    Ok(Written { version })
}

fn decoded(part: &str) -> Option<String> {
    let decoded = percent_decode_str(part).decode_utf8();
    decoded.ok().map(std::borrow::Cow::into_owned)
}

async fn read(body: Incoming) -> Result<Bytes, Failure> {
    let read = Limited::new(body, MOST_DATA_BYTES).collect().await;
    let read = read.map_err(|error| {
        if error.is::<LengthLimitError>() {
            let why = format!("the body has more than {MOST_DATA_BYTES} bytes");
            return Failure(StatusCode::PAYLOAD_TOO_LARGE, why);
        }
        bad(format!("the body cannot be read: {error}"))
    })?;
    Ok(read.to_bytes())
}

fn expected(headers: &HeaderMap) -> Result<Option<u32>, Failure> {
    let Some(tag) = headers.get(IF_MATCH) else {
        return Ok(None);
    };
    let tag = tag.to_str().unwrap_or_default().trim();
    let number = tag.trim_start_matches('"').trim_end_matches('"').parse();
    number
        .map(Some)
        .map_err(|_| bad("If-Match is no version, such as \"3\"".to_owned()))
}

fn is_forced(query: Option<&str>) -> bool {
    let mut pairs = query.unwrap_or_default().split('&');
    pairs.any(|pair| pair == "force=true")
}

fn json(body: &impl Serialize) -> Answer {
    let body = serde_json::to_vec(body);
    body.map_or_else(
        |_| {
            let mut broken = Response::default();
            *broken.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            broken
        },
        with_type,
    )
}

fn verbatim(body: &str) -> Answer {
    with_type(body.as_bytes().to_vec())
}

fn with_type(body: Vec<u8>) -> Answer {
    let mut answer = Response::new(Full::from(body));
    let kind = HeaderValue::from_static("application/json");
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}

fn nothing() -> Answer {
    let mut answer = Response::default();
    *answer.status_mut() = StatusCode::NO_CONTENT;
    answer
}

fn unknown() -> Failure {
    Failure(
        StatusCode::NOT_FOUND,
        "there is nothing of this name here".to_owned(),
    )
}

fn bad(why: String) -> Failure {
    Failure(StatusCode::BAD_REQUEST, why)
}
