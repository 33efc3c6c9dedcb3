//! Calls through an endpoint cache that are tried at several endpoints.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::EndpointCache;
use super::cached_endpoint::CachedEndpoint;
use super::picked::Picked;
use super::retry_error::{AttemptError, FailedAttempt, GaveUp, RetryError};
use crate::balance::{CallInfo, Outcome};
use crate::error::{Error, ErrorKind};
use crate::retry::{Backoff, later};
use crate::runtime::runtime;

const OP: &str = "pick endpoint";

/// How a call is tried at one endpoint after another, for clients that do not retry themselves. The way of go-kit's `lb.Retry`, with
/// back-off, and with tries at endpoints that have not failed yet.
///
/// ```
/// use std::io;
/// use std::time::Duration;
/// use sd_core::EndpointCache;
/// use sd_core::endpoints::RetryPolicy;
///
/// # async fn dial(_: &str) -> io::Result<String> { Ok(String::new()) }
/// # async fn example(clients: &EndpointCache<String>) -> Result<(), Box<dyn std::error::Error>> {
/// // A refused connection was not a call: trying again cannot execute it twice.
/// let retry = RetryPolicy::new(|error: &io::Error| error.kind() == io::ErrorKind::ConnectionRefused)
///     .attempts(4)
///     .timeout(Duration::from_secs(2));
/// let answer = clients.call(&retry, |endpoint| async move { dial(endpoint.value()).await }).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RetryPolicy<E> {
    attempts: u32,
    attempt_timeout: Option<Duration>,
    timeout: Duration,
    first: Duration,
    cap: Duration,
    retried: Arc<dyn Fn(&E) -> bool + Send + Sync>,
}

impl<E> RetryPolicy<E> {
    /// Tries again after errors for which `retried` holds. It should hold only for errors that pass, and of a call that must not be
    /// executed twice only for those that prove that it was not executed.
    pub fn new(retried: impl Fn(&E) -> bool + Send + Sync + 'static) -> Self {
        Self {
            attempts: 3,
            attempt_timeout: None,
            timeout: Duration::from_secs(10),
            first: Duration::from_millis(50),
            cap: Duration::from_secs(1),
            retried: Arc::new(retried),
        }
    }

    /// Sets how often a call is tried, at least once. Default 3.
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// Sets how long an attempt may take before the call moves to another endpoint. The endpoint may have executed it: set this only
    /// for calls that are safe to execute twice. The last attempt may take all the time that is left. Default none.
    #[must_use]
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.attempt_timeout = Some(timeout);
        self
    }

    /// Sets how long the call may take with everything: waiting for an endpoint, all attempts, and the delays between them. Default
    /// 10 s.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets the delays between attempts: up to `first`, doubling up to `cap`, with full jitter. Default 50 ms and 1 s.
    #[must_use]
    pub fn backoff(mut self, first: Duration, cap: Duration) -> Self {
        (self.first, self.cap) = (first, cap);
        self
    }
}

impl<T: Send + Sync + 'static> EndpointCache<T> {
    /// Calls an endpoint, and further ones as `retry` has it. An endpoint that has failed is called again only if there is no other.
    ///
    /// While there is no endpoint, the call waits if one may come soon: the set is not known yet, or a value is being made for the
    /// first time.
    ///
    /// # Errors
    /// Says why no further attempt was made, and how each attempt failed. [`RetryError::into_last`] gives the last error of `call`.
    /// Outside a tokio runtime no attempt is made: there are no timers.
    ///
    /// # Cancel safety
    /// Dropping the future drops the attempt under way. Whether the endpoint has executed it is then unknown.
    pub async fn call<R, E, F>(
        &self,
        retry: &RetryPolicy<E>,
        call: impl FnMut(Arc<CachedEndpoint<T>>) -> F,
    ) -> Result<R, RetryError<E>>
    where
        F: Future<Output = Result<R, E>>,
    {
        self.call_for(&CallInfo::new(), retry, call).await
    }

    /// [`call`](Self::call) for a call of which something is known.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    ///
    /// # Cancel safety
    /// As [`call`](Self::call).
    pub async fn call_for<R, E, F>(
        &self,
        info: &CallInfo<'_>,
        retry: &RetryPolicy<E>,
        mut call: impl FnMut(Arc<CachedEndpoint<T>>) -> F,
    ) -> Result<R, RetryError<E>>
    where
        F: Future<Output = Result<R, E>>,
    {
        if let Err(error) = runtime(OP) {
            return Err(RetryError::new(GaveUp::NoEndpoint(error), Vec::new()));
        }
        let deadline = later(Instant::now(), retry.timeout);
        let mut backoff = Backoff::new(retry.first, retry.cap);
        let mut tried = Vec::new();
        let mut failed = Vec::new();
        loop {
            let picked = match self.pick_until(deadline, info, &tried).await {
                Ok(picked) => picked,
                Err(error) => return Err(RetryError::new(GaveUp::NoEndpoint(error), failed)),
            };
            let endpoint = Arc::clone(picked.endpoint());
            let is_last = failed.len() + 1 >= retry.attempts as usize;
            let patience = retry.attempt_timeout.filter(|_| !is_last);
            let limit = patience.map_or(deadline, |patience| {
                later(Instant::now(), patience).min(deadline)
            });
            let (error, gave_up) = match timeout_at(limit, call(Arc::clone(&endpoint))).await {
                Ok(Ok(answer)) => {
                    picked.end(Outcome::Success);
                    return Ok(answer);
                }
                Ok(Err(error)) => {
                    let gave_up = (!(retry.retried)(&error)).then_some(GaveUp::NotRetried);
                    (AttemptError::Failed(error), gave_up)
                }
                Err(_) => {
                    let gave_up = (limit == deadline).then_some(GaveUp::Timeout(retry.timeout));
                    (AttemptError::TimedOut, gave_up)
                }
            };
            // With an error that is not retried the endpoint has answered.
            picked.end(match gave_up {
                Some(GaveUp::NotRetried) => Outcome::Success,
                _ => Outcome::Failure,
            });
            failed.push(FailedAttempt::new(
                endpoint.instance().endpoint().clone(),
                error,
            ));
            if let Some(gave_up) = gave_up {
                return Err(RetryError::new(gave_up, failed));
            }
            if is_last {
                return Err(RetryError::new(GaveUp::Attempts, failed));
            }
            let delay = backoff.next_delay();
            if later(Instant::now(), delay) >= deadline {
                return Err(RetryError::new(GaveUp::Timeout(retry.timeout), failed));
            }
            tried.push(endpoint);
            sleep(delay).await;
        }
    }

    /// Picks an endpoint that is not among `tried` if there is one. Waits for one only if it may come soon.
    async fn pick_until(
        &self,
        deadline: Instant,
        info: &CallInfo<'_>,
        tried: &[Arc<CachedEndpoint<T>>],
    ) -> Result<Picked<T>, Error> {
        let mut news = self.news.clone();
        loop {
            news.mark_unchanged();
            let set = self.endpoints();
            let has_tried = |one: &CachedEndpoint<T>| tried.iter().any(|other| one.is_same(other));
            if let Some(picked) = set.pick_for(info, has_tried) {
                return Ok(picked);
            }
            if !set.may_have_choice_soon() {
                return Err(self.why_not_ready(Error::new(ErrorKind::Unavailable, OP), "now"));
            }
            match timeout_at(deadline, news.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(Error::new(ErrorKind::Closed, OP)),
                Err(_) => {
                    let error = Error::new(ErrorKind::Timeout, OP);
                    return Err(self.why_not_ready(error, "in time"));
                }
            }
        }
    }
}

impl<E> fmt::Debug for RetryPolicy<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryPolicy")
            .field("attempts", &self.attempts)
            .field("attempt_timeout", &self.attempt_timeout)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}
