//! What an operator of Consul asks by HTTP.

use std::net::SocketAddr;
use std::time::Duration;

use serde::de::DeserializeOwned;
use server_programs::http::{self, Request};
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use crate::Result;

/// Sends requests to one server, each over a connection of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Http {
    pub(crate) server: SocketAddr,
    pub(crate) within: Duration,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer(http::Answer);

impl Http {
    /// # Errors
    /// No answer came in time.
    pub(crate) async fn ask(
        &self,
        method: &'static str,
        target: &str,
        body: &str,
    ) -> Result<Answer> {
        let (server, deadline) = (self.server, Instant::now() + self.within);
        let (target, body) = (target.to_owned(), body.to_owned());
        let asked = spawn_blocking(move || {
            let request = Request {
                method,
                target: &target,
                headers: &[],
                body: &body,
            };
            request.ask(server, deadline.into_std())
        });
        Ok(Answer(asked.await??))
    }
}

impl Answer {
    pub(crate) fn is_not_found(&self) -> bool {
        self.0.status == 404
    }

    /// # Errors
    /// The server refused, or said something else.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T> {
        let http::Answer { status, body } = &self.0;
        if *status == 200 {
            return Ok(serde_json::from_str(body)?);
        }
        Err(format!("Consul answers with {status} `{body}`").into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_a_status_and_a_body() {
        let answer = |status, body: &str| {
            let body = body.to_owned();
            Answer(http::Answer { status, body })
        };
        assert!(answer(200, "true\n").json::<bool>().unwrap());
        let refused = answer(500, "no leader").json::<bool>();
        let error = refused.unwrap_err().to_string();
        assert!(
            error.contains("500") && error.contains("no leader"),
            "{error}"
        );
    }
}
