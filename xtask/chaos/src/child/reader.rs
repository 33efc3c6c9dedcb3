//! One process that follows the service, with a subscription and in the naive way beside it.

use std::collections::BTreeSet;
use std::time::Duration;

use sd_core::{Registry, Snapshot};
use tokio::time::{sleep, timeout};

use crate::Result;
use crate::child::journal::Journal;
use crate::child::node::{dismissed, orders, registry};
use crate::child::service::SERVICE;
use crate::child::{Brief, die_with};
use crate::history::{Event, Reader};

const POLL_EVERY: Duration = Duration::from_millis(500);
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// Runs until its standard input ends.
pub(crate) fn run(brief: &Brief) -> Result<()> {
    die_with(brief.parent)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let journal = Journal::new(&brief.name);
        let (ours, naive) = (registry(brief)?, registry(brief)?);
        tokio::select! {
            ended = follow(&ours, &journal) => ended,
            ended = poll(&naive, &journal) => ended,
            () = dismissed(orders()) => Ok(()),
        }
    })
}

async fn follow(registry: &Registry, journal: &Journal) -> Result<()> {
    let mut subscription = registry.subscribe(SERVICE)?;
    let mut teller = Teller::new(journal, Reader::Ours);
    loop {
        let state = subscription.changed().await?;
        if state.is_known() {
            let set = state.snapshot();
            let held = set.held().iter().map(ToString::to_string).collect();
            teller.tell(ready(set), held);
        }
    }
}

async fn poll(registry: &Registry, journal: &Journal) -> Result<()> {
    let mut teller = Teller::new(journal, Reader::Naive);
    loop {
        let listed = timeout(ANSWER_WITHIN, registry.list(SERVICE)).await;
        let set = match listed {
            Ok(Ok(set)) => ready(&set),
            _ => BTreeSet::new(),
        };
        teller.tell(set, BTreeSet::new());
        sleep(POLL_EVERY).await;
    }
}

fn ready(set: &Snapshot) -> BTreeSet<String> {
    let ready = set.instances().iter().filter(|one| one.is_ready());
    ready.map(|one| one.id().to_string()).collect()
}

/// Tells what is new.
struct Teller<'a> {
    journal: &'a Journal,
    reader: Reader,
    last: Option<(BTreeSet<String>, BTreeSet<String>)>,
}

impl<'a> Teller<'a> {
    fn new(journal: &'a Journal, reader: Reader) -> Self {
        Self {
            journal,
            reader,
            last: None,
        }
    }

    fn tell(&mut self, ready: BTreeSet<String>, held: BTreeSet<String>) {
        let new = Some((ready, held));
        if self.last != new {
            self.last = new;
            if let Some((ready, held)) = self.last.clone() {
                self.journal.tell(Event::Listed {
                    reader: self.reader,
                    ready,
                    held,
                });
            }
        }
    }
}
