//! One resolver: one question, one answer, within a time limit.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hickory_resolver::config::{ProtocolConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::proto::op::{DnsResponse, Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::{PoolContext, TlsConfig};
use sd_core::ErrorKind;
use tokio::time::Instant;

use crate::client::answer::{self, Step};
use crate::client::channel::{Channel, Question};
use crate::client::error::Failure;
use crate::config::transport::Transport;
use crate::config::validation::Settings;

/// How many questions are under way at a time.
pub(crate) const MOST_IN_FLIGHT: usize = 64;
/// How much longer than ours the time limits of the client crate are, whose error does not say so.
const LATER: Duration = Duration::from_secs(1);

/// One resolver. It keeps connections, and no answers.
pub(crate) struct Resolver {
    address: SocketAddr,
    context: PoolContext,
    datagrams: Option<Channel>,
    stream: Channel,
    limit: Duration,
    /// Whether it refuses questions with EDNS(0), and answers the same ones without.
    refuses_edns: AtomicBool,
}

impl Resolver {
    /// The resolver at `address`. Connects when it is asked.
    pub(crate) fn new(address: SocketAddr, settings: &Settings, tls: TlsConfig) -> Self {
        let mut options = ResolverOpts::default();
        options.timeout = settings.timeout + LATER;
        options.max_active_requests = MOST_IN_FLIGHT;
        let datagrams = (settings.transport == Transport::Auto)
            .then(|| Channel::new(address, ProtocolConfig::Udp));
        Self {
            address,
            context: PoolContext::new(options, tls),
            datagrams,
            stream: Channel::new(address, stream(address, settings)),
            limit: settings.timeout,
            refuses_edns: AtomicBool::new(false),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Asks until the resolver answers in a way that can be used: over TCP as well if the answer does not fit into a datagram, and
    /// without EDNS(0) if the resolver does not understand that. Cancel-safe.
    pub(crate) async fn ask(&self, name: &Name, wanted: RecordType) -> Result<Step, Failure> {
        let query = Query::query(name.clone(), wanted);
        let response = self.ask_as_it_understands(&query).await?;
        match response.metadata.response_code {
            ResponseCode::NoError | ResponseCode::NXDomain => {}
            code => return Err(Failure::refused(code)),
        }
        // The client crate compares them over UDP alone.
        if response.queries != [query] {
            return Err(Failure::new(
                ErrorKind::InvalidData,
                "answered another question",
            ));
        }
        answer::read(&response, name, wanted)
    }

    async fn ask_as_it_understands(&self, query: &Query) -> Result<DnsResponse, NetError> {
        let mut question = Question {
            query,
            with_edns: true,
            by: Instant::now() + self.limit,
        };
        if !self.refuses_edns.load(Ordering::Relaxed) {
            let answer = self.exchange(question).await?;
            if !is_not_understood(&answer) {
                return Ok(answer);
            }
        }
        question.with_edns = false;
        let answer = self.exchange(question).await;
        // Where it makes no difference, or another server is there by now, the next question has it again.
        let is_understood = answer.as_ref().is_ok_and(|it| !is_not_understood(it));
        self.refuses_edns.store(is_understood, Ordering::Relaxed);
        answer
    }

    async fn exchange(&self, question: Question<'_>) -> Result<DnsResponse, NetError> {
        if let Some(datagrams) = &self.datagrams {
            let answer = datagrams.ask(question, &self.context).await?;
            if !answer.metadata.truncation {
                return Ok(answer);
            }
        }
        let answer = self.stream.ask(question, &self.context).await?;
        if answer.metadata.truncation {
            return Err(NetError::Truncated);
        }
        Ok(answer)
    }
}

/// What a server answers that does not know EDNS(0) (RFC 6891, section 7).
fn is_not_understood(answer: &DnsResponse) -> bool {
    matches!(
        answer.metadata.response_code,
        ResponseCode::FormErr | ResponseCode::NotImp | ResponseCode::BADVERS
    )
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Resolver").field(&self.address).finish()
    }
}

#[cfg(feature = "tls")]
fn stream(address: SocketAddr, settings: &Settings) -> ProtocolConfig {
    if settings.transport != Transport::Tls {
        return ProtocolConfig::Tcp;
    }
    let own = || address.ip().to_string().into();
    let server_name = settings.server_name.clone().unwrap_or_else(own);
    ProtocolConfig::Tls { server_name }
}

/// Without the feature, settings that ask for TLS are refused before.
#[cfg(not(feature = "tls"))]
fn stream(_address: SocketAddr, _settings: &Settings) -> ProtocolConfig {
    ProtocolConfig::Tcp
}
