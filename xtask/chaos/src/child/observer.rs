//! One process that looks on at our elections.

use sd_core::Registry;
use sd_election::Observer;

use crate::Result;
use crate::child::journal::Journal;
use crate::child::node::{dismissed, orders, registry};
use crate::child::{Brief, die_with};
use crate::history::{Election, Event};

/// Runs until its standard input ends.
pub(crate) fn run(brief: &Brief) -> Result<()> {
    die_with(brief.parent)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let journal = Journal::new(&brief.name);
        let registry = registry(brief)?;
        tokio::select! {
            ended = observe(&registry, Election::Plain, &journal) => ended,
            ended = observe(&registry, Election::Delayed, &journal) => ended,
            () = dismissed(orders()) => Ok(()),
        }
    })
}

async fn observe(registry: &Registry, election: Election, journal: &Journal) -> Result<()> {
    let mut observer = Observer::new(registry, election.name())?;
    let mut told = None;
    loop {
        let view = observer.changed().await?;
        let known = view.is_known();
        let token = view.leader.map(|leader| leader.token.value());
        if known && told != Some(token) {
            journal.tell(Event::Observed { election, token });
            told = Some(token);
        }
    }
}
