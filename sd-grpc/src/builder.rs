//! Puts a channel together.

use std::sync::Arc;
use std::time::Duration;

use http::uri::{Authority, Scheme};
use http::{HeaderValue, Uri};
use sd_core::balance::{Policy, RoundRobin, Selection};
use sd_core::{Error, Instance, Printable, Result, Subscription};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{Instrument, info_span};

use crate::channel::BalancedChannel;
use crate::config::{ChannelConfig, KeepAlive};
use crate::connector::{Connector, Dial, SharedConnector};
use crate::driver::{Driver, Parts};
use crate::durations::CallDurations;
use crate::event::EVENTS;
use crate::instrument::{self, CallMetrics};
use crate::options::AnsweredBy;
use crate::ready_set::{Condition, ReadySet};
use crate::replay_budget::ReplayBudget;
use crate::shared::{Published, Shared};
use crate::throttle::Throttle;
#[cfg(feature = "tls")]
use crate::tls::{ClientTls, Tls};
use crate::transport::{AuthorityOf, Transport};

const OP: &str = "build channel";
const USER_AGENT: &str = concat!("sd-grpc/", env!("CARGO_PKG_VERSION"));

/// Builds a [`BalancedChannel`].
#[derive(Debug)]
#[must_use = "nothing is connected before `build`"]
pub struct ChannelBuilder {
    subscription: Result<Subscription>,
    config: ChannelConfig,
    policy: Arc<dyn Policy>,
    connector: SharedConnector,
    origin: Option<Uri>,
    authority_of: Option<AuthorityOf>,
    user_agent: Option<String>,
    #[cfg(feature = "tls")]
    tls: Option<ClientTls>,
}

impl ChannelBuilder {
    pub(crate) fn new(subscription: Result<Subscription>) -> Self {
        Self {
            subscription,
            config: ChannelConfig::default(),
            policy: Arc::new(RoundRobin::new()),
            connector: SharedConnector(Arc::new(Dial::new())),
            origin: None,
            authority_of: None,
            user_agent: None,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    /// Starts from an existing subscription, for instance one with its own configuration.
    pub fn over(subscription: Subscription) -> Self {
        Self::new(Ok(subscription))
    }

    /// Replaces all settings.
    pub fn config(mut self, config: ChannelConfig) -> Self {
        self.config = config;
        self
    }

    /// Sets [`ChannelConfig::default_deadline`].
    pub fn default_deadline(mut self, deadline: Duration) -> Self {
        self.config.default_deadline = Some(deadline);
        self
    }

    /// Sets [`ChannelConfig::attempt_timeout`].
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.config.attempt_timeout = Some(timeout);
        self
    }

    /// Sets [`ChannelConfig::wait_for_ready`].
    pub fn wait_for_ready(mut self, wait: bool) -> Self {
        self.config.wait_for_ready = wait;
        self
    }

    /// Sets [`ChannelConfig::idempotent_methods`], for instance `["/greeter.Greeter/SayHello"]`.
    pub fn idempotent_methods(
        mut self,
        paths: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        self.config.idempotent_methods = paths.into_iter().map(Into::into).collect();
        self
    }

    /// Adds methods to [`ChannelConfig::answered_by`], for instance
    /// `(AnsweredBy::Headers, ["/grpc.health.v1.Health/Watch"])`.
    pub fn answered_by(
        mut self,
        by: AnsweredBy,
        paths: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        let paths = paths.into_iter().map(|path| (path.into(), by));
        self.config.answered_by.extend(paths);
        self
    }

    /// Sets [`ChannelConfig::keep_alive`].
    pub fn keep_alive(mut self, keep_alive: KeepAlive) -> Self {
        self.config.keep_alive = Some(keep_alive);
        self
    }

    /// Sets [`ChannelConfig::selection`].
    pub fn selection(mut self, selection: Selection) -> Self {
        self.config.selection = selection;
        self
    }

    /// Sets what picks an endpoint for each call. Default [`RoundRobin`].
    pub fn policy(mut self, policy: impl Policy) -> Self {
        self.policy = Arc::new(policy);
        self
    }

    /// Replaces [`Dial`], which dials TCP, and Unix sockets if that is [allowed](Dial::with_unix_sockets).
    pub fn connector(mut self, connector: impl Connector) -> Self {
        self.connector = SharedConnector(Arc::new(connector));
        self
    }

    /// Sends this scheme and authority with every call instead of the endpoint's, for servers behind a proxy that routes by
    /// name.
    pub fn origin(mut self, origin: Uri) -> Self {
        self.origin = Some(origin);
        self
    }

    /// Names instances by more than their addresses: calls to an instance carry the authority that `of` gives for it, and with TLS its
    /// host is what the server is told (SNI) and what its certificate must name. Where `of` gives none, the channel's
    /// [`origin`](Self::origin) and [`ClientTls::with_server_name`](crate::ClientTls::with_server_name) apply, and else the address.
    /// An instance whose authority changes gets a new connection, and the old one drains.
    ///
    /// Writers to the registry choose whom a client trusts if `of` takes names from there: check them.
    ///
    /// ```
    /// # fn name(builder: sd_grpc::ChannelBuilder) -> sd_grpc::ChannelBuilder {
    /// builder.authority_of(|instance| {
    ///     let host = instance.metadata().get("host")?;
    ///     let host = host.ends_with(".services.example").then_some(host)?;
    ///     host.parse().ok()
    /// })
    /// # }
    /// ```
    pub fn authority_of(
        mut self,
        of: impl Fn(&Instance) -> Option<Authority> + Send + Sync + 'static,
    ) -> Self {
        self.authority_of = Some(AuthorityOf(Arc::new(of)));
        self
    }

    /// Prepends this to the channel's own user agent, `sd-grpc/<version>`.
    pub fn user_agent(mut self, user_agent: impl Into<String>) -> Self {
        self.user_agent = Some(user_agent.into());
        self
    }

    /// Uses TLS on every connection.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: ClientTls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Starts the channel and returns at once; connections open in the background. Must be called inside a tokio runtime,
    /// which runs the channel's tasks.
    ///
    /// # Errors
    /// `InvalidInput` for an invalid service name or setting, or outside a runtime; otherwise the subscription's error.
    pub fn build(self) -> Result<BalancedChannel> {
        let subscription = self.subscription?;
        let runtime = Handle::try_current().map_err(|_| {
            Error::invalid_input(OP, "there is no tokio runtime: call `build` inside one")
        })?;
        self.config.check()?;
        let origin = self.origin.map(origin).transpose()?;
        let user_agent = user_agent(self.user_agent.as_deref())?;
        let transport = Transport {
            connector: self.connector,
            origin,
            authority_of: self.authority_of,
            #[cfg(feature = "tls")]
            scheme: self.tls.as_ref().map_or(Scheme::HTTP, |_| Scheme::HTTPS),
            #[cfg(not(feature = "tls"))]
            scheme: Scheme::HTTP,
            #[cfg(feature = "tls")]
            tls: self.tls.map(Tls::new).transpose()?,
        };

        let service = subscription.service().clone();
        let config = Arc::new(self.config);
        let waiting = instrument::calls_waiting(&service);
        let published = Arc::new(Published::new(ReadySet::unresolved(), waiting));
        let (telling, events) = mpsc::channel(EVENTS);
        let (stop, ended) = (CancellationToken::new(), CancellationToken::new());
        let driver = Driver::new(Parts {
            subscription,
            config: Arc::clone(&config),
            transport: Arc::new(transport),
            published: Arc::clone(&published),
            policy: self.policy,
            events,
            telling: telling.clone(),
            stop: stop.clone(),
        });
        let span = info_span!("balance", service = %Printable(service.as_str()));
        let over = DriverEnd {
            published: Arc::clone(&published),
            _ended: ended.clone().drop_guard(),
        };
        runtime.spawn(
            async move {
                driver.run().await;
                drop(over);
            }
            .instrument(span),
        );
        Ok(BalancedChannel::new(Arc::new(Shared {
            throttle: Throttle::new(config.retry_throttle),
            replay_budget: Arc::new(ReplayBudget::new(config.replay_budget)),
            metrics: CallMetrics::new(&service),
            durations: CallDurations::new(&service, config.call_labels),
            service,
            config,
            published,
            events: telling,
            user_agent,
            totals: crossbeam_utils::CachePadded::default(),
            ended,
            _stop_on_drop: stop.clone().drop_guard(),
            stop,
        })))
    }
}

/// Says that the driver has ended, also if its runtime or a panic ended it.
struct DriverEnd {
    published: Arc<Published>,
    _ended: DropGuard,
}

impl Drop for DriverEnd {
    fn drop(&mut self) {
        let set = self.published.set().load_full();
        if matches!(set.condition, Condition::Closed { .. }) {
            return;
        }
        let reason = "the channel's task has ended: its runtime was shut down, or it panicked";
        self.published.publish(set.closed(reason.into()));
    }
}

fn origin(origin: Uri) -> Result<(Scheme, Authority)> {
    let text = origin.to_string();
    let parts = origin.into_parts();
    parts.scheme.zip(parts.authority).ok_or_else(|| {
        Error::invalid_input(
            OP,
            format!("the origin {text:?} needs a scheme and a host, such as https://name"),
        )
    })
}

fn user_agent(prefix: Option<&str>) -> Result<HeaderValue> {
    let Some(prefix) = prefix else {
        return Ok(HeaderValue::from_static(USER_AGENT));
    };
    HeaderValue::from_str(&format!("{prefix} {USER_AGENT}")).map_err(|_| {
        Error::invalid_input(
            OP,
            format!("the user agent {prefix:?} is not a valid header value"),
        )
    })
}
