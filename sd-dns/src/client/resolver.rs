//! One resolver: one question, one answer, within a time limit.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use hickory_resolver::config::{ProtocolConfig, ResolverOpts};
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::{DnsResponse, Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::{PoolContext, TlsConfig};
use sd_core::ErrorKind;
use tokio::time::timeout;

use crate::client::answer::{self, Answer, Step};
use crate::client::channel::Channel;
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
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Asks once, over TCP as well if the answer does not fit into a datagram. Cancel-safe.
    pub(crate) async fn ask(&self, name: &Name, wanted: RecordType) -> Result<Step, Failure> {
        let query = Query::query(name.clone(), wanted);
        let Ok(asked) = timeout(self.limit, self.exchange(&query)).await else {
            // A connection on which nothing comes back may be dead, or that of a runtime that stands still.
            for channel in self.datagrams.iter().chain([&self.stream]) {
                channel.forget();
            }
            return Err(NetError::Timeout.into());
        };
        let response = asked?;
        // The client crate compares them over UDP alone.
        if response.queries.iter().any(|answered| *answered != query) {
            return Err(Failure::new(
                ErrorKind::InvalidData,
                "answered another question",
            ));
        }
        match DnsError::from_response(response) {
            Ok(response) => match response.metadata.response_code {
                ResponseCode::NoError | ResponseCode::NXDomain => {
                    answer::read(&response, name, wanted)
                }
                // One that the client crate does not know.
                code => Err(NetError::from(DnsError::ResponseCode(code)).into()),
            },
            Err(DnsError::NoRecordsFound(none)) => Ok(Step::Answer(Answer::of(&none))),
            Err(error) => Err(NetError::from(error).into()),
        }
    }

    async fn exchange(&self, query: &Query) -> Result<DnsResponse, NetError> {
        if let Some(datagrams) = &self.datagrams {
            let answer = datagrams.ask(query, &self.context).await?;
            if !answer.metadata.truncation {
                return Ok(answer);
            }
        }
        let answer = self.stream.ask(query, &self.context).await?;
        if answer.metadata.truncation {
            return Err(NetError::Truncated);
        }
        Ok(answer)
    }
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
