//! What a leader holds.

use std::ops::Deref;

use sd_core::{Error, ErrorKind, Result};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::flaw::{Flaw, flawed};
use crate::term::Term;

/// How a leadership's owner tells its driver to stop, and learns that it has.
#[derive(Clone, Debug)]
pub(crate) struct Control {
    pub(crate) resign: CancellationToken,
    pub(crate) cancel: CancellationToken,
    pub(crate) left: watch::Receiver<Option<Result<()>>>,
}

/// A term that was won. Dropping it ends the term at once and leaves in the background, so that the next leader need not wait for
/// the time-to-live; if the process ends before that is done, it must. So drop it after the work has stopped: what the work has
/// spawned goes on, and only [fencing](crate::Fence) stands between that and the next leader.
///
/// Everything that can be read of the term is in [`Term`], which this dereferences to.
#[derive(Debug)]
#[must_use = "dropping a leadership ends it"]
pub struct Leadership {
    pub(crate) term: Term,
    pub(crate) control: Control,
}

impl Leadership {
    /// The term, for parts of the application that must ask whether it goes on.
    pub fn term(&self) -> Term {
        self.term.clone()
    }

    /// Ends the term at once and returns when the server has confirmed that the entry is gone and whoever is next was told. Call it
    /// when the leader's work has stopped.
    ///
    /// # Errors
    /// What kept the server from confirming until the lease must have ended by itself.
    ///
    /// # Cancel safety
    /// The term is over with the first poll, and leaving goes on in the background.
    pub async fn resign(mut self) -> Result<()> {
        if !flawed(Flaw::BeliefWhileLeaving) {
            self.term.shared.validity.end();
        }
        self.control.resign.cancel();
        let gone = || Error::new(ErrorKind::Closed, "resign").because("what drives it has ended");
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
