//! Changes of one record, each of them one script that compares the run.
//!
//! A request that was given up may still be on its way, and come after later ones. So a process numbers what it writes of its records, and
//! the scripts refuse a number that is lower than the one which is stored.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sd_backend::Owner;
use sd_core::{Error, ErrorKind, Instance, Override, RecordId, Result};

use crate::client::Client;
use crate::client::answer::Answers;
use crate::client::error::is_full;
use crate::client::script::Script;
use crate::codec::names::Layout;
use crate::codec::value::{Stored, decode, encode, said};
use crate::scripts::{OVERRIDE, PUT, PUT_AGAIN, WITHDRAW, args_of, new_history};

/// How long the mark of a withdrawn record stays, so that readers who were cut off learn of it.
const MARKED_FOR: Duration = Duration::from_secs(30);
/// How often a write is numbered. The second number is greater than the one which is stored.
const MOST_NUMBERS: usize = 3;
/// A stored number beyond this is none of ours. Numbers go on from it, and scripts can read none from 10^15 on.
const LARGEST_NUMBER: u64 = 900_000_000_000_000;

/// The records of all services, as those see them who change them.
#[derive(Clone, Debug)]
pub(crate) struct Records {
    client: Arc<Client>,
    layout: Layout,
    /// How many writes were numbered.
    writes: Arc<AtomicU64>,
}

/// What a script answers.
enum Answer {
    Verdict(Verdict),
    /// A write of the same run has come that has this number.
    Late(u64),
}

/// Whether a record was changed, and why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Done,
    /// There is none, or it is withdrawn.
    Missing,
    /// Another run has its place, or something that is no record.
    Held(Owner),
}

impl Records {
    pub(crate) fn new(client: Arc<Client>, layout: Layout) -> Self {
        Self {
            client,
            layout,
            writes: Arc::default(),
        }
    }

    /// What the place of a record is called in errors.
    pub(crate) fn place(&self, record: &RecordId) -> String {
        let keys = self.layout.keys(&record.service);
        format!("{:?} in {}", record.id, keys.records)
    }

    /// Writes a record, which then lives for `ttl`. With `must_exist` only over one of the same run.
    pub(crate) async fn put(
        &self,
        op: &'static str,
        instance: &Instance,
        ttl: Duration,
        must_exist: bool,
    ) -> Result<Verdict> {
        let json = encode(op, instance)?;
        let (ttl, record) = (ttl.as_millis().to_string(), instance.record_id());
        let must_be: &[u8] = if must_exist { b"live" } else { b"any" };
        let args = [ttl.as_bytes(), &json, must_be];
        match self.write(op, &PUT, &record, &args).await {
            // An earlier process of the same run may have left the record. It lives on if nothing of it changes.
            Err(error) if is_full(&error) => {
                let args = [ttl.as_bytes(), &json, b"same"];
                match self.write(op, &PUT_AGAIN, &record, &args).await? {
                    Verdict::Missing => Err(error),
                    verdict => Ok(verdict),
                }
            }
            done => done,
        }
    }

    /// Marks a record as withdrawn that this process has written, or may have.
    pub(crate) async fn withdraw(&self, op: &'static str, record: &RecordId) -> Result<Verdict> {
        let kept = MARKED_FOR.as_millis().to_string();
        self.write(op, &WITHDRAW, record, &[kept.as_bytes()]).await
    }

    /// Marks a record of another process as withdrawn.
    pub(crate) async fn remove(&self, op: &'static str, record: &RecordId) -> Result<Verdict> {
        let kept = MARKED_FOR.as_millis().to_string();
        let args = [&b""[..], kept.as_bytes()];
        self.change_unnumbered(op, &WITHDRAW, record, &args).await
    }

    /// Sets what an operator says of a record of this run.
    pub(crate) async fn say(
        &self,
        op: &'static str,
        record: &RecordId,
        wanted: Option<Override>,
    ) -> Result<Verdict> {
        let args = [said(wanted).as_bytes()];
        self.change_unnumbered(op, &OVERRIDE, record, &args).await
    }

    /// Runs a script with a number that is greater than those before.
    async fn write(
        &self,
        op: &'static str,
        script: &Script,
        record: &RecordId,
        more: &[&[u8]],
    ) -> Result<Verdict> {
        for _ in 0..MOST_NUMBERS {
            // No two writes have the same one: the server takes a write with an equal number for the same write.
            let number = self.writes.fetch_add(1, Ordering::Relaxed) + 1;
            let text = number.to_string();
            let args = [&[text.as_bytes()][..], more].concat();
            match self.change(op, script, record, &args).await? {
                Answer::Verdict(verdict) => return Ok(verdict),
                // The same run has written it elsewhere, or before this process was started.
                Answer::Late(stored) => {
                    self.writes.fetch_max(stored, Ordering::Relaxed);
                }
            }
        }
        Err(self.is_written_elsewhere(op, record))
    }

    async fn change_unnumbered(
        &self,
        op: &'static str,
        script: &Script,
        record: &RecordId,
        more: &[&[u8]],
    ) -> Result<Verdict> {
        match self.change(op, script, record, more).await? {
            Answer::Verdict(verdict) => Ok(verdict),
            Answer::Late(_) => Err(self.is_written_elsewhere(op, record)),
        }
    }

    fn is_written_elsewhere(&self, op: &'static str, record: &RecordId) -> Error {
        let place = self.place(record);
        Error::new(ErrorKind::Unavailable, op)
            .because(format!("{place} is written by others at the same time"))
    }

    async fn change(
        &self,
        op: &'static str,
        script: &Script,
        record: &RecordId,
        more: &[&[u8]],
    ) -> Result<Answer> {
        let keys = self.layout.keys(&record.service);
        let (run, history) = (record.incarnation.to_string(), new_history());
        let mut args = args_of(&keys, &history).to_vec();
        args.extend([record.id.as_str(), &run].map(str::as_bytes));
        args.extend(more);
        let answered = self.client.run(op, script, &keys.of_service(), &args).await;
        match answered {
            // Another program has made one of its keys something else.
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                Ok(Answer::Verdict(no_record(&error)))
            }
            answered => read(answered?, record),
        }
    }
}

fn no_record(error: &Error) -> Verdict {
    let mut cause: &(dyn std::error::Error + 'static) = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    let reason = cause.to_string();
    Verdict::Held(Owner::NoRecord(reason))
}

fn read(mut answers: Answers, record: &RecordId) -> Result<Answer> {
    let verdict = match answers.text()?.as_str() {
        "done" => Verdict::Done,
        "missing" => Verdict::Missing,
        "late" => {
            let stored: u64 = answers.number()?;
            if stored > LARGEST_NUMBER {
                return Err(answers.odd());
            }
            return Ok(Answer::Late(stored));
        }
        "held" | "unreadable" => {
            let value = answers.bytes()?;
            match decode(&record.service, record.id.as_str().as_bytes(), &value) {
                Ok(Stored::None) => Verdict::Missing,
                Ok(Stored::Record { record: found, .. }) => {
                    Verdict::Held(Owner::of(&Ok(found), record))
                }
                Err(reason) => Verdict::Held(Owner::of(&Err(reason), record)),
            }
        }
        _ => return Err(answers.odd()),
    };
    Ok(Answer::Verdict(verdict))
}
