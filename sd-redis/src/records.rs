//! Changes of one record, each of them one script that compares the run.

use std::sync::Arc;
use std::time::Duration;

use sd_backend::Owner;
use sd_core::{Error, ErrorKind, Instance, Override, RecordId, Result};

use crate::client::Client;
use crate::client::answer::Answers;
use crate::client::script::Script;
use crate::codec::names::Layout;
use crate::codec::value::{decode, encode, said};
use crate::scripts::{OVERRIDE, PUT, WITHDRAW, args_of, new_history};

/// How long the mark of a withdrawn record stays, so that readers who were cut off learn of it.
const MARKED_FOR: Duration = Duration::from_secs(30);

/// The records of all services, as those see them who change them.
#[derive(Clone, Debug)]
pub(crate) struct Records {
    client: Arc<Client>,
    layout: Layout,
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
        Self { client, layout }
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
        let ttl = ttl.as_millis().to_string();
        let must_exist: &[u8] = if must_exist { b"1" } else { b"0" };
        let args = [ttl.as_bytes(), &json, must_exist];
        self.change(op, &PUT, &instance.record_id(), &args).await
    }

    /// Marks a record of this run as withdrawn.
    pub(crate) async fn mark(&self, op: &'static str, record: &RecordId) -> Result<Verdict> {
        let kept = MARKED_FOR.as_millis().to_string();
        self.change(op, &WITHDRAW, record, &[kept.as_bytes()]).await
    }

    /// Sets what an operator says of a record of this run.
    pub(crate) async fn say(
        &self,
        op: &'static str,
        record: &RecordId,
        wanted: Option<Override>,
    ) -> Result<Verdict> {
        let args = [said(wanted).as_bytes()];
        self.change(op, &OVERRIDE, record, &args).await
    }

    async fn change(
        &self,
        op: &'static str,
        script: &Script,
        record: &RecordId,
        more: &[&[u8]],
    ) -> Result<Verdict> {
        let keys = self.layout.keys(&record.service);
        let (run, history) = (record.incarnation.to_string(), new_history());
        let mut args = args_of(&keys, &history).to_vec();
        args.extend([record.id.as_str(), &run].map(str::as_bytes));
        args.extend(more);
        let answered = self.client.run(op, script, &keys.of_service(), &args).await;
        match answered {
            // Another program has made one of its keys something else.
            Err(error) if error.kind() == ErrorKind::InvalidData => Ok(no_record(&error)),
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

fn read(mut answers: Answers, record: &RecordId) -> Result<Verdict> {
    match answers.text()?.as_str() {
        "done" => Ok(Verdict::Done),
        "missing" => Ok(Verdict::Missing),
        "held" | "unreadable" => {
            let value = answers.bytes()?;
            let id = record.id.as_str().as_bytes();
            let stored = decode(&record.service, id, &value).map(|stored| stored.record);
            Ok(Verdict::Held(Owner::of(&stored, record)))
        }
        _ => Err(answers.odd()),
    }
}
