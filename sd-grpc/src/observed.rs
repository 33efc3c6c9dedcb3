//! One call as metrics and traces see it: from its start to the end of its response, or until it is dropped.
//!
//! Without a subscriber that wants spans, a call pays one comparison for them and allocates nothing. Spans are never entered:
//! they have their parents and fields from here, and nothing else runs in them.

use std::sync::Arc;

use sd_core::ServiceName;
use tokio::time::Instant;
use tonic::Code;
use tracing::field::Empty;
use tracing::{Span, debug_span};

use crate::durations::{Method, method_name};
use crate::instrument::SPANS;
use crate::status;

/// Tells once how a call ended.
pub(crate) struct Observed {
    began: Instant,
    /// `None` once it was told.
    method: Option<Arc<Method>>,
    /// Where the latest attempt went, if that is wanted.
    endpoint: Option<Arc<str>>,
    /// `None` where no subscriber wants it.
    span: Option<Box<Span>>,
}

impl Observed {
    pub(crate) fn begin(service: &ServiceName, path: &str, method: Arc<Method>) -> Self {
        let name = method_name(path);
        let span = debug_span!(
            target: SPANS,
            "call",
            otel.name = name,
            otel.kind = "client",
            otel.status_code = Empty,
            rpc.system.name = "grpc",
            rpc.method = name,
            server.address = service.as_str(),
            rpc.response.status_code = Empty,
            "error.type" = Empty,
        );
        Self {
            began: Instant::now(),
            method: Some(method),
            endpoint: None,
            span: wanted(span),
        }
    }

    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    /// An attempt begins.
    pub(crate) fn attempt(
        &mut self,
        endpoint: impl FnOnce() -> Arc<str>,
        number: u32,
    ) -> AttemptSpan {
        let wants_endpoint = self.method.as_ref().is_some_and(|m| m.wants_endpoints());
        if self.span.is_none() && !wants_endpoint {
            return AttemptSpan::default();
        }
        let endpoint = endpoint();
        let span = self.span.as_deref().and_then(|call| {
            wanted(debug_span!(
                target: SPANS,
                parent: call,
                "attempt",
                endpoint = &*endpoint,
                number,
                rpc.response.status_code = Empty,
            ))
        });
        self.endpoint = Some(endpoint);
        AttemptSpan(span)
    }

    /// Hands the telling on.
    pub(crate) fn take(&mut self) -> Self {
        Self {
            began: self.began,
            method: self.method.take(),
            endpoint: self.endpoint.take(),
            span: self.span.take(),
        }
    }

    /// The call has ended. Only the first time counts.
    pub(crate) fn ended(&mut self, code: Code) {
        let Some(method) = self.method.take() else {
            return;
        };
        method.record(self.endpoint.as_ref(), code, self.began.elapsed());
        if let Some(span) = self.span.take() {
            let name = status::code_name(code);
            span.record("rpc.response.status_code", name);
            if code != Code::Ok {
                span.record("error.type", name);
                span.record("otel.status_code", "ERROR");
            }
        }
    }
}

impl Drop for Observed {
    /// Its caller did not wait for its end.
    fn drop(&mut self) {
        self.ended(Code::Cancelled);
    }
}

/// The span of an attempt, which lasts until it is dropped.
#[derive(Default)]
pub(crate) struct AttemptSpan(Option<Box<Span>>);

impl AttemptSpan {
    /// The status of the attempt. The first one counts.
    pub(crate) fn answered(&mut self, code: Code) {
        if let Some(span) = self.0.take() {
            span.record("rpc.response.status_code", status::code_name(code));
        }
    }
}

fn wanted(span: Span) -> Option<Box<Span>> {
    (!span.is_disabled()).then(|| Box::new(span))
}
