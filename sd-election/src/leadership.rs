//! What a leader holds while it leads.

use std::ops::Deref;

use sd_core::{Error, ErrorKind, Result};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::flaw::{Flaw, flawed};
use crate::term::Term;

/// How a leadership's owner tells the driver to stop, and learns that it has stopped.
#[derive(Clone, Debug)]
pub(crate) struct Control {
    pub(crate) resign: CancellationToken,
    pub(crate) cancel: CancellationToken,
    pub(crate) left: watch::Receiver<Option<Result<()>>>,
}

/// A term that this candidate has won. Dropping it ends the term at once and leaves the election in the background, so the next leader
/// does not wait for the time-to-live. If the process exits before that is done, the next leader does wait. Drop the leadership after
/// the work has stopped: tasks that the work has spawned continue, and only [fencing](crate::Fence) protects the next leader from them.
///
/// It dereferences to [`Term`], which has everything that can be read.
#[derive(Debug)]
#[must_use = "dropping a leadership ends it"]
pub struct Leadership {
    pub(crate) term: Term,
    pub(crate) control: Control,
}

impl Leadership {
    /// The term, for parts of the application that must check whether it still lasts.
    pub fn term(&self) -> Term {
        self.term.clone()
    }

    /// Ends the term at once. Returns when the server has confirmed that the entry is gone and has notified the next candidate. Call it
    /// when the leader's work has stopped.
    ///
    /// # Errors
    /// Why the server did not confirm before the lease must have expired.
    ///
    /// # Cancel safety
    /// The first poll ends the term, and leaving continues in the background.
    pub async fn resign(mut self) -> Result<()> {
        if !flawed(Flaw::BeliefWhileLeaving) {
            self.term.shared.validity.end();
        }
        self.control.resign.cancel();
        let gone = || {
            Error::new(ErrorKind::Closed, "resign")
                .because("the task that drives the term has ended")
        };
        match self.control.left.wait_for(Option::is_some).await {
            Ok(left) => left.clone().unwrap_or_else(|| Err(gone())),
            Err(_) => Err(gone()),
        }
    }
}

impl Deref for Leadership {
    type Target = Term;

    fn deref(&self) -> &Term {
        &self.term
    }
}

impl Drop for Leadership {
    fn drop(&mut self) {
        self.term.shared.validity.end();
        self.control.cancel.cancel();
    }
}
