//! One candidate's entry: told where it stands, kept alive, proved to be ours.

use async_trait::async_trait;
use etcd_client::{PutOptions, Txn, TxnOp};
use sd_backend::{CloseSignal, Place, QueueEntry, Queued, TermRecorder, Woken};
use sd_core::port::{
    Confirmation, CountsFrom, Entry, Limits, Predecessor, Standing, Ticket, check_value,
};
use sd_core::{Error, ErrorKind, FencingToken, Result};

use crate::client::answer::{found, position};
use crate::election::candidate_key::{Ahead, CandidateKey, Check};
use crate::election::deletion_watch::DeletionWatch;
use crate::election::term_record;

/// An entry under one key, attached to one lease.
#[derive(Debug)]
pub(crate) struct EtcdEntry {
    queue: QueueEntry<CandidateKey>,
    limits: Limits,
}

impl EtcdEntry {
    /// The entry of `ticket` under `candidate`.
    pub(crate) fn new(candidate: CandidateKey, ticket: &Ticket, limits: Limits) -> Self {
        let entry = term_record::entry_on(candidate.lease);
        let recorder = TermRecorder::new(ticket.id, entry, candidate.ttl);
        let term = ticket.records_term.then_some(recorder);
        Self {
            queue: QueueEntry::new(candidate, term),
            limits,
        }
    }
}

impl Queued for CandidateKey {
    type Ahead = Ahead;
    type Watch = DeletionWatch;

    fn signal(&self) -> &CloseSignal {
        &self.client.signal
    }

    fn token(&self) -> FencingToken {
        self.token()
    }

    async fn look(&self, op: &'static str) -> Result<Place<Ahead>> {
        self.look(op).await
    }

    async fn begin_term(&self, recorder: &TermRecorder) -> Result<Option<Predecessor>> {
        term_record::begin(recorder, self).await
    }

    async fn watch(
        &self,
        op: &'static str,
        ahead: Option<&Ahead>,
    ) -> Result<Option<DeletionWatch>> {
        let watch = DeletionWatch::open(self, op, ahead).await?;
        // For what went before the watches stood. No entry can have come in between: one that joins later is further behind.
        let checked = self.check(op, ahead).await?;
        Ok(matches!(checked, Check::Unchanged).then_some(watch))
    }

    fn covers(watch: &DeletionWatch, ahead: Option<&Ahead>) -> bool {
        watch.covers(ahead)
    }

    async fn woken(
        &self,
        op: &'static str,
        watch: &mut DeletionWatch,
        ahead: Option<&Ahead>,
    ) -> Result<Woken> {
        #[cfg(test)]
        if self.is_deaf.load(std::sync::atomic::Ordering::Relaxed) {
            return std::future::pending().await;
        }
        watch.woken(self, op, ahead).await
    }
}

#[async_trait]
impl Entry for EtcdEntry {
    async fn standing(&self, seen: Option<&Standing>) -> Result<Standing> {
        self.queue.standing("etcd: standing", seen).await
    }

    /// The check also looks after the one that the entry waits for: events get lost in some versions of etcd, and in connections
    /// that died.
    async fn confirm(&self) -> Result<Confirmation> {
        const OP: &str = "etcd: confirm entry";
        let (candidate, ahead) = (self.queue.candidate(), self.queue.ahead());
        let check = async {
            let checked = candidate.check(OP, ahead.as_ref()).await;
            // At once: a keep-alive that hangs must not have it forgotten.
            if let Ok(Check::Moved | Check::Gone(_)) = &checked {
                self.queue.invalidate();
            }
            checked
        };
        let keep_alive = candidate.client.keep_alive(OP, candidate.lease);
        let (extended, checked) = tokio::join!(keep_alive, check);
        // What is known for good says more than what could not be asked.
        if let Ok(Check::Gone(loss)) = checked {
            return Err(loss);
        }
        extended?;
        checked?;
        // Each keep-alive grants the same again.
        Ok(Confirmation::new(candidate.ttl, CountsFrom::ThisSend))
    }

    async fn proclaim(&self, value: &[u8]) -> Result<()> {
        const OP: &str = "etcd: proclaim";
        check_value(OP, value, &self.limits)?;
        let candidate = self.queue.candidate();
        let attached = PutOptions::new().with_lease(candidate.lease);
        let put = TxnOp::put(candidate.key.as_str(), value, Some(attached));
        let txn = Txn::new()
            .when(candidate.is_there())
            .and_then([put])
            .or_else([candidate.get_own()]);
        let answer = candidate.client.txn(OP, &txn).await?;
        if answer.succeeded() {
            return Ok(());
        }
        let at = position(OP, answer.header())?;
        let loss = candidate.loss(OP, at, found(&answer).as_ref());
        Err(loss.unwrap_or_else(|| {
            Error::new(ErrorKind::InvalidData, OP)
                .because("the server refused the write, but says that the entry is there and ours")
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    use sd_core::clock::BootClock;
    use sd_core::{ElectionName, Elector};
    use sd_testing::required_env;
    use tokio::time::timeout;

    use super::*;
    use crate::client::Client;
    use crate::config::EtcdConfig;
    use crate::election::elector::EtcdElector;

    const LONG: Duration = Duration::from_secs(30);

    fn elector() -> EtcdElector {
        let url = required_env("SD_TEST_ETCD").unwrap();
        let config = EtcdConfig::new([url]).with_election_prefix("/sd-test-elections");
        let shared = Client::new(config.checked().unwrap());
        EtcdElector::new(Arc::new(shared), Arc::new(BootClock))
    }

    fn tickets() -> [Ticket; 2] {
        let name = format!("{:016x}", fastrand::u64(..));
        let name = ElectionName::new(name).unwrap();
        [b"a", b"b"].map(|value| Ticket::new(name.clone(), *value, LONG * 2))
    }

    /// As with a server that loses events, or a connection that died on one side.
    #[tokio::test]
    #[ignore = "needs etcd: cargo xtask test --backend etcd"]
    async fn a_confirmation_finds_what_the_watch_was_not_told() {
        let (elector, [a, b]) = (elector(), tickets());
        elector.enter(&a).await.unwrap();
        let next = elector.enter(&b).await.unwrap();
        let waiting = next.standing(None).await.unwrap();
        let is_deaf = &next.queue.candidate().is_deaf;
        is_deaf.store(true, Ordering::Relaxed);

        let told = next.standing(Some(&waiting));
        tokio::pin!(told);
        let moment = Duration::from_millis(300);
        assert!(timeout(moment, &mut told).await.is_err());
        elector.leave(&a).await.unwrap();
        assert!(timeout(moment, &mut told).await.is_err());
        next.confirm().await.unwrap();
        let told = timeout(LONG, told).await.unwrap().unwrap();
        assert!(matches!(told, Standing::First { .. }), "{told:?}");

        // And its own end.
        let leading = told;
        let told = next.standing(Some(&leading));
        tokio::pin!(told);
        elector.leave(&b).await.unwrap();
        assert!(timeout(moment, &mut told).await.is_err());
        next.confirm().await.unwrap_err();
        let told = timeout(LONG, told).await.unwrap().unwrap();
        assert!(matches!(told, Standing::Gone(_)), "{told:?}");
    }
}
