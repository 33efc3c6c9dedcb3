//! What is under way at the elector for one participation: at most one call of each kind. A call that panics has failed.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use sd_core::clock::Clock;
use sd_core::panics::caught;
use sd_core::port::{Confirmation, Entry, Safety, Standing, Ticket};
use sd_core::{Elector, Error, ErrorKind, Printable, Result};
use tracing::warn;

use crate::campaign::machine::Call;
use crate::flaw::{Flaw, unless};
use crate::term::Proclamation;

/// How long a proclamation may take. Backends have limits of their own for each request.
const PROCLAIM_LIMIT: Duration = Duration::from_secs(5);

/// An entry, and what its server promises.
pub(crate) type Joined = (Arc<dyn Entry>, Safety);

#[derive(Default)]
pub(crate) struct Calls {
    pub(crate) join: Option<BoxFuture<'static, Result<Joined>>>,
    pub(crate) standing: Option<BoxFuture<'static, Result<Standing>>>,
    pub(crate) confirm: Option<BoxFuture<'static, Result<Confirmation>>>,
    pub(crate) leave: Option<BoxFuture<'static, Result<()>>>,
    pub(crate) proclaim: Option<BoxFuture<'static, ()>>,
}

impl Calls {
    /// The promise is asked for if it is not known yet.
    pub(crate) fn join(
        &mut self,
        elector: Arc<dyn Elector>,
        ticket: Ticket,
        promise: Option<Safety>,
    ) {
        self.join = Some(Box::pin(caught("join election", async move {
            let promise = match promise {
                Some(known) => known,
                None => promised(elector.as_ref()).await?,
            };
            Ok((elector.join(&ticket).await?.into(), promise))
        })));
    }

    pub(crate) fn leave(&mut self, elector: Arc<dyn Elector>, ticket: Ticket) {
        self.leave = Some(Box::pin(caught("leave election", async move {
            elector.leave(&ticket).await
        })));
    }

    pub(crate) fn standing(&mut self, entry: Arc<dyn Entry>, seen: Option<Standing>) {
        self.standing = Some(Box::pin(caught("wait in election", async move {
            entry.standing(seen.as_ref()).await
        })));
    }

    pub(crate) fn confirm(&mut self, entry: Arc<dyn Entry>) {
        self.confirm = Some(Box::pin(caught("confirm entry", async move {
            entry.confirm().await
        })));
    }

    pub(crate) fn proclaim(
        &mut self,
        entry: Arc<dyn Entry>,
        proclamation: Proclamation,
        clock: &dyn Clock,
    ) {
        let too_late = clock.sleep_until(
            clock.now() + unless(Flaw::AnswerAwaitedForEver, PROCLAIM_LIMIT, Duration::MAX),
        );
        self.proclaim = Some(Box::pin(async move {
            let done = tokio::select! {
                biased;
                done = caught("proclaim", entry.proclaim(&proclamation.value)) => done,
                () = too_late => Err(Error::new(ErrorKind::Timeout, "proclaim")
                    .because(format!("no answer within {PROCLAIM_LIMIT:?}"))),
            };
            // The caller may have stopped waiting.
            let _ = proclamation.done.send(done);
        }));
    }

    pub(crate) fn abandon(&mut self, call: Call) {
        match call {
            Call::Join => self.join = None,
            Call::Standing => self.standing = None,
            Call::Confirm => self.confirm = None,
            Call::Leave => self.leave = None,
        }
    }
}

/// The outcome of a call; pending if none is under way. The call goes on if this is dropped.
pub(crate) async fn outcome<T>(call: &mut Option<BoxFuture<'static, T>>) -> T {
    match call {
        Some(running) => {
            let outcome = running.as_mut().await;
            *call = None;
            outcome
        }
        None => pending().await,
    }
}

/// What the server promises; logs what it warns of.
async fn promised(elector: &dyn Elector) -> Result<Safety> {
    let safety = elector.safety().await?;
    for note in safety.warnings() {
        warn!(code = note.code, note = %Printable(&note.text), "this server weakens what an election promises");
    }
    Ok(safety)
}
