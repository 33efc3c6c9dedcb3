//! What connections and calls tell the driver.

use std::sync::Arc;
use std::time::Duration;

use crate::connection::{Connection, Leave};
use crate::subchannel::Subchannel;
use crate::target::Target;

/// What connections and calls tell the driver.
#[derive(Debug)]
pub(crate) enum Event {
    /// A connection is usable.
    Connected {
        subchannel: Arc<Subchannel>,
        extra: bool,
        connection: Arc<Connection>,
    },
    /// A connection could not be opened.
    Failed {
        subchannel: Arc<Subchannel>,
        extra: bool,
        error: Arc<str>,
    },
    /// A connection takes no new calls.
    Leaving {
        subchannel: Arc<Subchannel>,
        reason: Leave,
        /// Whether the server has answered a call on it.
        answered: bool,
        lived: Duration,
    },
    /// A connection that was usable is gone.
    Ended {
        subchannel: Arc<Subchannel>,
        connection: Arc<Connection>,
    },
    /// A connection takes more calls than before.
    Roomier,
    /// An extra connection had no call for a while.
    Idle {
        subchannel: Arc<Subchannel>,
        connection: Arc<Connection>,
    },
    /// An endpoint turned away so many calls in a row that it is to be ejected.
    TurnsAway { target: Arc<Target> },
    /// A call found all connections of an endpoint full.
    Grow { subchannel: Arc<Subchannel> },
}

/// How many events may wait. Connections wait to tell; calls do not, and ask again.
pub(crate) const EVENTS: usize = 1024;
