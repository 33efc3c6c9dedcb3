//! The heartbeats of all services: read, written, removed. Each change is one script that compares the run.

use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Pipeline};
use sd_backend::Owner;
use sd_core::{Error, ErrorKind, Instance, RecordId, Result, ServiceName, Skipped};

use crate::client::Client;
use crate::codec::heartbeat::{Heartbeat, PREFIX, channel, decode, encode, key, run_text};
use crate::records::Verdict;
use crate::scripts::HEARTBEAT;

/// How many are swept at once.
const MOST_SWEPT: usize = 500;

/// The heartbeats at one server.
#[derive(Clone, Debug)]
pub(crate) struct Heartbeats {
    /// Where they are written.
    pub(crate) client: Arc<Client>,
    /// Where they are read, which may be a replica.
    pub(crate) readers: Arc<Client>,
}

/// The heartbeats of one service at one moment.
#[derive(Debug, Default)]
pub(crate) struct Read {
    pub(crate) alive: Vec<Arc<Instance>>,
    pub(crate) skipped: Vec<Skipped>,
    /// In how long the next one ends, unless it is written again.
    pub(crate) next_end: Option<Duration>,
    /// What has ended and is still there.
    pub(crate) ended: Vec<Vec<u8>>,
}

impl Heartbeats {
    pub(crate) fn new(client: Arc<Client>) -> Self {
        let readers = client
            .of_readers()
            .map_or_else(|| Arc::clone(&client), Arc::new);
        Self { client, readers }
    }

    fn lives(&self) -> Duration {
        self.client.config().heartbeat_ttl
    }

    /// Reads a key at each place.
    pub(crate) async fn check(&self, op: &'static str) -> Result<()> {
        let look = Cmd::new().arg("HLEN").arg(PREFIX).to_owned();
        for client in [&self.client, &self.readers] {
            let asked = client.command(op, PREFIX, &look);
            asked.await?.number::<u64>()?;
        }
        Ok(())
    }

    /// Reads a service. What has ended by the server's clock is left out.
    pub(crate) async fn read(&self, op: &'static str, service: &ServiceName) -> Result<Read> {
        let key = key(service);
        let commands = |_| {
            let mut commands = Pipeline::new();
            commands.cmd("TIME");
            commands.cmd("HGETALL").arg(&key);
            commands
        };
        let mut answers = self.readers.ask(op, &key, commands).await?;
        let now: u64 = answers.list()?.number()?;
        let mut read = Read::default();
        let pairs = match answers.pairs() {
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                let reason = "it is no hash: remove it";
                read.skipped.push(Skipped::new(&key, reason));
                return Ok(read);
            }
            pairs => pairs?,
        };
        for (id, value) in pairs {
            let decoded = decode(service, &id, &value);
            match decoded.and_then(|heartbeat| not_ahead(heartbeat, now, self.lives())) {
                Ok(heartbeat) => match rest(&heartbeat, now, self.lives()) {
                    Some(rest) => {
                        read.next_end = Some(read.next_end.map_or(rest, |next| next.min(rest)));
                        read.alive.push(Arc::new(heartbeat.instance));
                    }
                    None => read.ended.push(id),
                },
                Err(reason) => {
                    let place = format!("{key} {}", id.escape_ascii());
                    read.skipped.push(Skipped::new(place, reason));
                }
            }
        }
        Ok(read)
    }

    /// Removes what was found to have ended.
    ///
    /// # Errors
    /// Why it is not removed. `Denied` if we may not.
    pub(crate) async fn sweep(
        &self,
        op: &'static str,
        service: &ServiceName,
        ended: &[Vec<u8>],
    ) -> Result<()> {
        let ended = ended.iter().map(Vec::as_slice).take(MOST_SWEPT);
        let ended: Vec<&[u8]> = ended.collect();
        if ended.is_empty() {
            return Ok(());
        }
        self.run(op, service, b"sweep", &ended).await.map(drop)
    }

    /// Writes a record. With `must_exist` only over one of the same run.
    pub(crate) async fn put(
        &self,
        op: &'static str,
        instance: &Instance,
        must_exist: bool,
    ) -> Result<Verdict> {
        let record = instance.record_id();
        let [before, after] = encode(op, instance)?;
        let run = run_text(&record);
        let done: &[u8] = if must_exist { b"renew" } else { b"put" };
        let args = [record.id.as_str(), &run, &before, &after].map(str::as_bytes);
        self.change(op, &record, done, &args).await
    }

    /// Removes the record of this run.
    pub(crate) async fn end(&self, op: &'static str, record: &RecordId) -> Result<Verdict> {
        let run = run_text(record);
        let args = [record.id.as_str(), &run].map(str::as_bytes);
        self.change(op, record, b"end", &args).await
    }

    async fn change(
        &self,
        op: &'static str,
        record: &RecordId,
        done: &[u8],
        args: &[&[u8]],
    ) -> Result<Verdict> {
        let answered = self.run(op, &record.service, done, args).await;
        let mut answers = match answered {
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                let reason = format!("{} is no hash", key(&record.service));
                return Ok(Verdict::Held(Owner::NoRecord(reason)));
            }
            answered => answered?,
        };
        match answers.text()?.as_str() {
            "done" => Ok(Verdict::Done),
            "missing" => Ok(Verdict::Missing),
            "held" => {
                let value = answers.bytes()?;
                let found = decode(&record.service, record.id.as_str().as_bytes(), &value);
                Ok(Verdict::Held(match found {
                    Ok(found) => Owner::Run((&found.instance).into()),
                    Err(reason) => Owner::NoRecord(reason),
                }))
            }
            _ => Err(answers.odd()),
        }
    }

    async fn run(
        &self,
        op: &'static str,
        service: &ServiceName,
        done: &[u8],
        args: &[&[u8]],
    ) -> Result<crate::client::answer::Answers, Error> {
        let (channel, lives) = (channel(service), self.lives().as_secs().to_string());
        let mut all = vec![channel.as_bytes(), lives.as_bytes(), done];
        all.extend(args);
        self.client
            .run(op, &HEARTBEAT, &[&key(service)], &all)
            .await
    }
}

/// A heartbeat, unless the clock of its writer is so far ahead that it would not end for long after the last one.
fn not_ahead(heartbeat: Heartbeat, now: u64, lives: Duration) -> Result<Heartbeat, String> {
    let ahead = heartbeat.last_update.saturating_sub(now);
    if ahead > lives.as_secs() {
        return Err(format!(
            "its lastUpdate is {ahead} s ahead of the server's clock"
        ));
    }
    Ok(heartbeat)
}

/// How long a heartbeat counts from now on. `None` if it does not any more.
fn rest(heartbeat: &Heartbeat, now: u64, lives: Duration) -> Option<Duration> {
    let age = now.saturating_sub(heartbeat.last_update);
    let rest = lives.as_secs().checked_sub(age)?;
    // It ends when more seconds than that have passed.
    Some(Duration::from_secs(rest + 1))
}
