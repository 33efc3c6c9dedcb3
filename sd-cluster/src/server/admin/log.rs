//! What the log says of operators: each change, from where it came, and what became of it.
//!
//! A line is written where the change is made, as a client can go before it is answered.

use std::net::IpAddr;

use sd_core::{Error, ErrorKind, Printable, Result, brief};
use tracing::{info, warn};

/// The line of the log that an operator's change has. No value is in it.
pub(super) struct Log {
    peer: IpAddr,
    what: &'static str,
    name: String,
}

impl Log {
    pub(super) fn of(peer: IpAddr, what: &'static str, name: &str) -> Self {
        Self {
            peer,
            what,
            name: brief(Printable(name)),
        }
    }

    /// Logs what has come of it, which it returns.
    pub(super) fn tell(&self, done: Result<()>) -> Result<()> {
        let Self { peer, what, name } = self;
        match &done {
            Ok(()) => info!(%peer, name, "an operator {what}"),
            Err(error) => self.tell_failed(error),
        }
        done
    }

    /// As [`tell`](Self::tell), with the version that was written.
    pub(super) fn tell_version(&self, done: Result<u32>) -> Result<u32> {
        let Self { peer, what, name } = self;
        match &done {
            Ok(version) => info!(%peer, name, version, "an operator {what}"),
            Err(error) => self.tell_failed(error),
        }
        done
    }

    /// What the operator has to mend is told in the answer alone: its rules name fields of the configuration.
    fn tell_failed(&self, error: &Error) {
        let Self { peer, what, name } = self;
        let kind = error.kind();
        match kind {
            ErrorKind::InvalidInput | ErrorKind::NotFound | ErrorKind::Conflict => {
                info!(%peer, name, ?kind, "an operator {what}, which is refused");
            }
            _ => {
                let error = error.report();
                warn!(%peer, name, %error, "an operator {what}, which fails");
            }
        }
    }
}
