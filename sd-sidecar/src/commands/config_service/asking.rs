//! Requests to a config service.

use http::header::{ETAG, IF_MATCH};
use http::{HeaderValue, Method};
use hyper::body::Bytes;
use sd_core::brief;
use sd_sidecar::tls::ClientTls;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::cli::arguments::AtConfigService;
use crate::commands::http_api::{Answer, Api, Place, Unanswered, exit_of, token};
use crate::exit::Exit;
use crate::failure::Failure;

const OTHER: &str = "answers something else than a config service";

/// One config service, and how it is asked.
pub(super) struct Service<'a> {
    at: &'a AtConfigService,
    api: Api,
}

/// What it has answered.
pub(super) struct Said<'a> {
    service: &'a Service<'a>,
    answer: Answer,
}

impl<'a> Service<'a> {
    pub(super) fn new(at: &'a AtConfigService) -> Result<Self, Failure> {
        let misused = |line: &str| {
            Failure::new(format!("{line}; try: sdctl config-service --help")).with(Exit::Misused)
        };
        let place = Place::of(&at.service).filter(|place| !matches!(place, Place::Unix(_)));
        let place = place.ok_or_else(|| {
            misused("expected the service as http://host:port, https://host:port or host:port")
        })?;
        let tls = ClientTls::from_parts(
            at.ca.clone(),
            at.cert.clone(),
            at.key.clone(),
            at.server_name.clone(),
        );
        if matches!(place, Place::Tls { .. }) {
            tls.check(at.timeout)
                .map_err(|error| misused(&error.report().to_string()))?;
        } else if tls.is_set() {
            return Err(misused(
                "--ca, --cert, --key and --server-name are of TLS, which the service's address does not ask for: write https://host:port",
            ));
        }
        Ok(Self {
            at,
            api: Api {
                place,
                tls,
                token: token(at.token_file.as_deref(), "SDCTL_CONFIG_SERVICE_TOKEN")?,
                within: at.timeout,
            },
        })
    }

    /// Where the configuration of a module is.
    pub(super) fn config_of(module: &str) -> String {
        use std::fmt::Write as _;
        let mut path = "/v1/modules/".to_owned();
        for byte in module.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                path.push(char::from(byte));
            } else {
                // Writing to a string cannot fail.
                let _ = write!(path, "%{byte:02X}");
            }
        }
        path.push_str("/config");
        path
    }

    pub(super) async fn get(&self, path: &str) -> Result<Said<'_>, Failure> {
        self.ask(Method::GET, path, None, Bytes::new()).await
    }

    /// Writes over the version `over`, or over any.
    pub(super) async fn put(
        &self,
        path: &str,
        body: Vec<u8>,
        over: Option<u32>,
    ) -> Result<Said<'_>, Failure> {
        let over = over.and_then(|version| HeaderValue::try_from(format!("\"{version}\"")).ok());
        self.ask(Method::PUT, path, over, body.into()).await
    }

    /// A part of an answer as what it should be.
    pub(super) fn read<T: DeserializeOwned>(&self, answer: &Value) -> Result<T, Failure> {
        T::deserialize(answer).map_err(|_| self.failure(OTHER))
    }

    fn failure(&self, why: &str) -> Failure {
        Failure::new(format!("the config service at {} {why}", self.at.service))
            .with(Exit::Unreachable)
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        over: Option<HeaderValue>,
        body: Bytes,
    ) -> Result<Said<'_>, Failure> {
        let over = over.map(|version| (IF_MATCH, version));
        let answer = self.api.ask(method, path, over, body).await;
        let answer = answer.map_err(|Unanswered { why, exit }| {
            let tip = "; try: --service with the address of its operators";
            self.failure(&format!("{why}{tip}")).with(exit)
        })?;
        let said = Said {
            service: self,
            answer,
        };
        let status = said.answer.status;
        if status.is_success() {
            return Ok(said);
        }
        let why = said.json()?["error"]
            .as_str()
            .map_or_else(|| status.to_string(), brief);
        let exit = match status.as_u16() {
            404 => Exit::NotFound,
            _ => exit_of(status),
        };
        Err(self.failure(&format!("refuses: {why}")).with(exit))
    }
}

impl Said<'_> {
    pub(super) fn json(&self) -> Result<Value, Failure> {
        serde_json::from_slice(&self.answer.body).map_err(|_| self.service.failure(OTHER))
    }

    pub(super) fn text(&self) -> Result<&str, Failure> {
        std::str::from_utf8(&self.answer.body).map_err(|_| self.service.failure(OTHER))
    }

    /// The version that the answer tells.
    pub(super) fn version(&self) -> Option<u32> {
        let tag = self.answer.headers.get(ETAG)?.to_str().ok()?;
        tag.trim_matches('"').parse().ok()
    }
}
