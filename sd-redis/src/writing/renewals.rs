//! Renewals of one service's records, in few requests: one waits for some milliseconds, and goes out for all that have come until then.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use sd_core::sync::lock;
use sd_core::{RecordId, Result, ServiceName};
use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::client::Client;
use crate::codec::names::{Keys, Layout};
use crate::scripts::{RENEW, args_of, new_history};
use crate::writing::listing::Listing;

/// How many records one request renews at most: a script holds up the server.
const MOST_RECORDS: usize = 500;
/// How long a request waits for further records.
const GATHERED_FOR: Duration = Duration::from_millis(20);

/// The renewals of one service.
#[derive(Debug)]
pub(crate) struct Renewals {
    client: Arc<Client>,
    pub(crate) keys: Keys,
    /// For as long as one of its records is renewed.
    pub(crate) listing: Listing,
    waiting: Mutex<Vec<Wanted>>,
    /// Held by the one whose request waits or is under way.
    turn: tokio::sync::Mutex<()>,
}

/// A renewal that is waited for.
#[derive(Debug)]
struct Wanted {
    record: RecordId,
    ttl: Duration,
    answer: oneshot::Sender<Result<String>>,
}

impl Renewals {
    pub(crate) fn new(client: Arc<Client>, layout: &Layout, service: &ServiceName) -> Self {
        let keys = layout.keys(service);
        Self {
            listing: Listing::new(Arc::clone(&client), layout.list(), keys.listed_as.clone()),
            keys,
            client,
            waiting: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// Extends a record, and returns what the script says of it.
    ///
    /// # Errors
    /// Why the server did not answer.
    ///
    /// # Cancel safety
    /// A dropped call may have extended the record. Others that its request was for ask again.
    pub(crate) async fn renew(
        &self,
        op: &'static str,
        record: &RecordId,
        ttl: Duration,
    ) -> Result<String> {
        loop {
            let (answer, mut told) = oneshot::channel();
            lock(&self.waiting).push(Wanted {
                record: record.clone(),
                ttl,
                answer,
            });
            let turn = tokio::select! {
                biased;
                told = &mut told => match told {
                    Ok(told) => return told,
                    // The one whose request it was has given up.
                    Err(_) => continue,
                },
                turn = self.turn.lock() => turn,
            };
            sleep(GATHERED_FOR).await;
            loop {
                match told.try_recv() {
                    Ok(told) => return told,
                    Err(oneshot::error::TryRecvError::Closed) => break,
                    Err(oneshot::error::TryRecvError::Empty) => {}
                }
                self.send(op).await;
            }
            drop(turn);
        }
    }

    /// Renews the first of those that wait.
    async fn send(&self, op: &'static str) {
        let mut wanted = {
            let mut waiting = lock(&self.waiting);
            let most = waiting.len().min(MOST_RECORDS);
            waiting.drain(..most).collect::<Vec<_>>()
        };
        wanted.retain(|wanted| !wanted.answer.is_closed());
        match self.run(op, &wanted).await {
            Ok(answers) => {
                for (wanted, answer) in wanted.into_iter().zip(answers) {
                    let _ = wanted.answer.send(Ok(answer));
                }
            }
            Err(error) => {
                for wanted in wanted {
                    let _ = wanted.answer.send(Err(error.clone()));
                }
            }
        }
    }

    async fn run(&self, op: &'static str, wanted: &[Wanted]) -> Result<Vec<String>> {
        let texts: Vec<_> = wanted
            .iter()
            .map(|wanted| {
                let (run, ttl) = (wanted.record.incarnation, wanted.ttl.as_millis());
                (run.to_string(), ttl.to_string())
            })
            .collect();
        let history = new_history();
        let mut args = args_of(&self.keys, &history).to_vec();
        for (wanted, (run, ttl)) in wanted.iter().zip(&texts) {
            let id = wanted.record.id.as_str();
            args.extend([id, run.as_str(), ttl.as_str()].map(str::as_bytes));
        }
        let keys = self.keys.of_service();
        let mut answers = self.client.run(op, &RENEW, &keys, &args).await?;
        let mut read = Vec::with_capacity(wanted.len());
        for _ in wanted {
            read.push(answers.text()?);
        }
        Ok(read)
    }
}
