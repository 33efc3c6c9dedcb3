//! Renewals of one service's records, in few requests: one waits for some milliseconds, and goes out for all that have come until then.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use sd_core::sync::lock;
use sd_core::{Error, ErrorKind, RecordId, Result, ServiceName};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};
use tracing::debug;

use crate::client::Client;
use crate::codec::names::{Keys, Layout};
use crate::scripts::{NOTE, RENEW, args_of, new_history};

/// How many records one request renews at most: a script holds up the server.
const MOST_RECORDS: usize = 500;
/// How long a request waits for further records.
const GATHERED_FOR: Duration = Duration::from_millis(20);
/// How long a service is in the list after it was last noted there, at least.
const LISTED_FOR: Duration = Duration::from_secs(600);

/// The renewals of one service.
#[derive(Debug)]
pub(crate) struct Renewals {
    client: Arc<Client>,
    layout: Layout,
    pub(crate) keys: Keys,
    waiting: Mutex<Vec<Wanted>>,
    /// Held by the one whose request waits or is under way.
    turn: tokio::sync::Mutex<()>,
    noted_at: Mutex<Option<Instant>>,
}

/// A renewal that is waited for.
#[derive(Debug)]
struct Wanted {
    record: RecordId,
    ttl: Duration,
    answer: oneshot::Sender<Result<String>>,
}

impl Renewals {
    pub(crate) fn new(client: Arc<Client>, layout: Layout, service: &ServiceName) -> Self {
        Self {
            keys: layout.keys(service),
            client,
            layout,
            waiting: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            noted_at: Mutex::default(),
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
        let longest = wanted.iter().map(|wanted| wanted.ttl).max();
        let (renewed, noted) = tokio::join!(
            self.run(op, &wanted),
            self.note_now_and_then(op, longest.unwrap_or_default())
        );
        if let Err(error) = noted {
            debug!(error = %error.report(), "a service was not noted in the list");
        }
        match renewed {
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

    async fn note_now_and_then(&self, op: &'static str, ttl: Duration) -> Result<()> {
        let is_recent = |noted: Instant| noted.elapsed() < LISTED_FOR / 3;
        if lock(&self.noted_at).is_some_and(is_recent) {
            return Ok(());
        }
        self.note(op, ttl).await
    }

    /// Notes in the list of services that this one is there.
    ///
    /// # Errors
    /// Why the server did not do it.
    pub(crate) async fn note(&self, op: &'static str, ttl: Duration) -> Result<()> {
        let listed_for = LISTED_FOR.max(ttl * 3).as_millis().to_string();
        let args = [self.keys.listed_as.as_bytes(), listed_for.as_bytes()];
        let list = self.layout.list();
        let done = self.client.run(op, &NOTE, &[&list], &args).await;
        if done
            .as_ref()
            .is_err_and(|error| error.kind() == ErrorKind::InvalidData)
        {
            return Err(Error::new(ErrorKind::InvalidData, op).because(format!(
                "{list} is not the list of services, which should be a sorted set: remove it"
            )));
        }
        done?;
        *lock(&self.noted_at) = Some(Instant::now());
        Ok(())
    }
}
