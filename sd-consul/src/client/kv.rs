//! Keys and values: one key read or waited for, and transactions.

use std::borrow::Cow;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use sd_core::{Error, ErrorKind, Result};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::client::answer::{Answer, Meta};
use crate::client::blocking_queries::Waiter;
use crate::client::error::says_denied;
use crate::client::{Client, Request};

/// A key as it is stored.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct KvEntry {
    pub(crate) key: String,
    #[serde(default, deserialize_with = "from_base64")]
    pub(crate) value: Vec<u8>,
    /// Which session holds the lock; empty if none does.
    #[serde(default)]
    pub(crate) session: String,
    pub(crate) modify_index: u64,
}

/// One step of a transaction.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct KvOp<'a> {
    #[serde(rename = "KV")]
    kv: KvStep<'a>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct KvStep<'a> {
    verb: &'static str,
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "to_base64")]
    value: Option<Cow<'a, [u8]>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u64>,
}

impl<'a> KvOp<'a> {
    fn new(verb: &'static str, key: &'a str) -> Self {
        Self {
            kv: KvStep {
                verb,
                key,
                value: None,
                session: None,
                index: None,
            },
        }
    }

    /// Reads a key, and fails if it is not there.
    pub(crate) fn get(key: &'a str) -> Self {
        Self::new("get", key)
    }

    /// Writes a key if it was last modified at `index`; 0 stands for one that is not there.
    pub(crate) fn cas(key: &'a str, index: u64, value: impl Into<Cow<'a, [u8]>>) -> Self {
        let mut op = Self::new("cas", key);
        op.kv.index = Some(index);
        op.kv.value = Some(value.into());
        op
    }

    /// Deletes a key if it was last modified at `index`.
    pub(crate) fn delete_cas(key: &'a str, index: u64) -> Self {
        let mut op = Self::new("delete-cas", key);
        op.kv.index = Some(index);
        op
    }

    /// Writes a key and takes the lock on it, unless another session has it.
    pub(crate) fn lock(key: &'a str, session: &'a str, value: impl Into<Cow<'a, [u8]>>) -> Self {
        let mut op = Self::check_session(key, session);
        op.kv.verb = "lock";
        op.kv.value = Some(value.into());
        op
    }

    /// Writes a key and gives up the lock on it, if this session has it.
    pub(crate) fn unlock(key: &'a str, session: &'a str, value: impl Into<Cow<'a, [u8]>>) -> Self {
        let mut op = Self::lock(key, session, value);
        op.kv.verb = "unlock";
        op
    }

    /// Fails unless this session has the lock.
    pub(crate) fn check_session(key: &'a str, session: &'a str) -> Self {
        let mut op = Self::new("check-session", key);
        op.kv.session = Some(session);
        op
    }

    /// Fails unless the key is as it was found.
    pub(crate) fn check_unchanged(key: &'a str, found: Option<&KvEntry>) -> Self {
        match found {
            Some(found) => {
                let mut op = Self::new("check-index", key);
                op.kv.index = Some(found.modify_index);
                op
            }
            None => Self::new("check-not-exists", key),
        }
    }
}

/// What became of a transaction.
#[derive(Debug)]
pub(crate) enum Txn {
    /// All of it was done. What the steps that name a key gave, in their order.
    Done(Vec<KvEntry>),
    /// None of it was done.
    Refused(Vec<Refusal>),
}

/// As [`Txn`], before the answer is read.
#[derive(Debug)]
pub(crate) enum Committed {
    Done(Answer),
    Refused(Vec<Refusal>),
}

/// Why a step was refused.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Refusal {
    #[serde(rename = "OpIndex")]
    pub(crate) step: usize,
    pub(crate) what: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TxnAnswer {
    #[serde(default)]
    results: Option<Vec<TxnResult>>,
    #[serde(default)]
    errors: Option<Vec<Refusal>>,
}

#[derive(Deserialize)]
struct TxnResult {
    #[serde(rename = "KV")]
    kv: KvEntry,
}

impl Client {
    /// Reads a key after all writes that were confirmed before.
    pub(crate) async fn kv_get(
        &self,
        op: &'static str,
        key: &str,
    ) -> Result<(Option<KvEntry>, Meta)> {
        let path = kv_path(key);
        let request = self.remote(op, Method::GET, &path).with("consistent", "");
        read(op, self.send(request).await?)
    }

    /// Reads all keys that begin so, after all writes that were confirmed before.
    pub(crate) async fn kv_list(&self, op: &'static str, prefix: &str) -> Result<Vec<KvEntry>> {
        let path = kv_path(prefix);
        let request = self.remote(op, Method::GET, &path);
        let answer = self
            .send(request.with("recurse", "").with("consistent", ""))
            .await?;
        if answer.says_no_key() {
            return Ok(Vec::new());
        }
        answer.success(op)?.json(op)
    }

    /// Waits until a key may have changed since `index`, at most this long. Cancel-safe.
    pub(crate) async fn kv_wait(
        &self,
        op: &'static str,
        waiter: &Waiter,
        key: &str,
        index: u64,
        most: Duration,
    ) -> Result<(Option<KvEntry>, Meta)> {
        let path = kv_path(key);
        let request: Request<'_> = self.remote(op, Method::GET, &path);
        read(op, self.wait(waiter, &request, index, most).await?)
    }

    /// Empties a key and gives up the lock on it, if this session has it; says whether it had.
    pub(crate) async fn kv_release(
        &self,
        op: &'static str,
        key: &str,
        session: &str,
    ) -> Result<bool> {
        let path = kv_path(key);
        let request = self.remote(op, Method::PUT, &path).with("release", session);
        self.call(request).await?.json(op)
    }

    /// Runs a transaction in the configured datacenter, once.
    pub(crate) async fn txn(&self, op: &'static str, steps: &[KvOp<'_>]) -> Result<Txn> {
        let request = self.remote(op, Method::PUT, &["txn"]);
        match self.commit(request, &steps).await? {
            Committed::Done(answer) => {
                let done: TxnAnswer = answer.json(op)?;
                let results = done.results.unwrap_or_default();
                Ok(Txn::Done(
                    results.into_iter().map(|result| result.kv).collect(),
                ))
            }
            Committed::Refused(refusals) => Ok(Txn::Refused(refusals)),
        }
    }

    /// Runs a transaction of any steps in the agent's own datacenter, where all records are written and all that decides about them is
    /// read, once.
    pub(crate) async fn local_txn<S: Serialize + Sync>(
        &self,
        op: &'static str,
        steps: &S,
    ) -> Result<Committed> {
        let request = self.local(op, Method::PUT, &["txn"]);
        self.commit(request, steps).await
    }

    async fn commit<S: Serialize + Sync>(
        &self,
        request: Request<'_>,
        steps: &S,
    ) -> Result<Committed> {
        let op = request.op;
        let request = request.json(steps)?.once();
        let answer = self.send(request).await?;
        if answer.status != 409 {
            return Ok(Committed::Done(answer.success(op)?));
        }
        let refused: TxnAnswer = answer.json(op)?;
        let refusals = refused.errors.unwrap_or_default();
        if let Some(denied) = refusals.iter().find(|refusal| says_denied(&refusal.what)) {
            return Err(Error::new(ErrorKind::Denied, op).because(denied.what.clone()));
        }
        Ok(Committed::Refused(refusals))
    }
}

/// Slashes separate folders only for people; a key is encoded as a whole all the same.
fn kv_path(key: &str) -> [&str; 2] {
    ["kv", key]
}

fn read(op: &'static str, answer: Answer) -> Result<(Option<KvEntry>, Meta)> {
    let meta = answer.meta;
    if answer.says_no_key() {
        return Ok((None, meta));
    }
    let mut found: Vec<KvEntry> = answer.success(op)?.json(op)?;
    Ok((found.pop(), meta))
}

fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = Option::<Cow<'_, str>>::deserialize(deserializer)?;
    match text {
        Some(text) => STANDARD
            .decode(text.as_bytes())
            .map_err(serde::de::Error::custom),
        None => Ok(Vec::new()),
    }
}

#[expect(
    clippy::ref_option,
    reason = "serde hands over a reference to the field"
)]
fn to_base64<S: Serializer>(
    value: &Option<Cow<'_, [u8]>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let value = value.as_deref().unwrap_or_default();
    serializer.serialize_str(&STANDARD.encode(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_written_as_consul_reads_them() {
        let entry: KvEntry = serde_json::from_str(
            r#"{"Key":"k","Value":"AP8=","Session":"s","ModifyIndex":7,"LockIndex":1}"#,
        )
        .unwrap();
        assert_eq!(
            (entry.value.as_slice(), entry.modify_index),
            (&[0, 255][..], 7)
        );
        let empty: KvEntry =
            serde_json::from_str(r#"{"Key":"k","Value":null,"ModifyIndex":7}"#).unwrap();
        assert!(empty.value.is_empty() && empty.session.is_empty());
        let steps = [
            KvOp::get("k"),
            KvOp::cas("k", 7, vec![0, 255]),
            KvOp::delete_cas("k", 7),
            KvOp::lock("k", "s", Vec::new()),
            KvOp::check_session("k", "s"),
            KvOp::check_unchanged("k", Some(&entry)),
            KvOp::check_unchanged("k", None),
        ];
        assert_eq!(
            serde_json::to_string(&steps).unwrap(),
            r#"[{"KV":{"Verb":"get","Key":"k"}},{"KV":{"Verb":"cas","Key":"k","Value":"AP8=","Index":7}},"#.to_owned()
                + r#"{"KV":{"Verb":"delete-cas","Key":"k","Index":7}},"#
                + r#"{"KV":{"Verb":"lock","Key":"k","Value":"","Session":"s"}},"#
                + r#"{"KV":{"Verb":"check-session","Key":"k","Session":"s"}},"#
                + r#"{"KV":{"Verb":"check-index","Key":"k","Index":7}},{"KV":{"Verb":"check-not-exists","Key":"k"}}]"#
        );
    }
}
