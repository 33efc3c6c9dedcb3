//! An endpoint of the service as the driver keeps it: its places, and what is to become of them.

use std::sync::Arc;

use sd_core::Instance;
use sd_core::balance::Listed;
use sd_core::retry::Backoff;
use tokio::task::AbortHandle;

use crate::config::ChannelConfig;
use crate::ejection::Ejection;
use crate::subchannel::{EndpointState, Subchannel};
use crate::target::Target;

/// One endpoint of the service.
pub(crate) struct Member {
    pub(crate) instance: Arc<Instance>,
    pub(crate) state: EndpointState,
    pub(crate) link: Link,
    /// Where it was before it moved; serves on until the new place is connected. Boxed because it is rare.
    pub(crate) previous: Option<Box<Link>>,
}

/// A subchannel and what the driver knows about it.
pub(crate) struct Link {
    pub(crate) subchannel: Arc<Subchannel>,
    /// How many of its connections take new calls, as far as was told.
    pub(crate) open: usize,
    pub(crate) backoff: Backoff,
    /// For extra connections that break soon.
    pub(crate) growth: Backoff,
    pub(crate) ejection: Ejection,
    /// A connection is being opened. Aborting it gives up.
    pub(crate) opening: Option<AbortHandle>,
}

impl Member {
    pub(crate) fn new(instance: Arc<Instance>, link: Link) -> Self {
        Self {
            state: EndpointState::of(&instance, false, false, false),
            instance,
            link,
            previous: None,
        }
    }

    /// The place that calls use.
    pub(crate) fn shown(&self) -> &Link {
        match &self.previous {
            Some(previous) if self.link.open == 0 => previous,
            _ => &self.link,
        }
    }

    pub(crate) fn listed(&self) -> Listed {
        Listed {
            instance: Arc::clone(&self.instance),
            load: self.shown().subchannel.target().load().cloned(),
            usable: self.state == EndpointState::Ready,
        }
    }
}

impl Link {
    pub(crate) fn new(target: Target, config: &ChannelConfig) -> Self {
        let backoff = || Backoff::new(config.reconnect_first, config.reconnect_cap);
        Self {
            subchannel: Arc::new(Subchannel::new(target)),
            open: 0,
            backoff: backoff(),
            growth: backoff(),
            ejection: Ejection::default(),
            opening: None,
        }
    }
}
