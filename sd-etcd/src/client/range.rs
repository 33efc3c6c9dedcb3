//! Reads all keys of a range, in pages, at one revision.

use etcd_client::{GetOptions, KeyValue};
use sd_core::{Error, ErrorKind, Result};

use crate::client::Client;
use crate::client::answer::{Position, position};

/// Keys that are read in one request.
const PAGE: i64 = 1000;
/// How often a read starts over because its revision was compacted between two pages.
const MOST_STARTS: u32 = 3;

/// Puts every entry of the range, end excluded, into what `new` makes. Starts over with another one if it has to.
pub(crate) async fn read_range<S>(
    client: &Client,
    op: &'static str,
    range: (&str, &str),
    new: impl Fn() -> S,
    put: impl Fn(&mut S, &KeyValue),
) -> Result<(S, Position)> {
    read(client, op, range, &GetOptions::new(), new, put).await
}

/// As [`read_range`], but the entries have no values.
pub(crate) async fn read_keys<S>(
    client: &Client,
    op: &'static str,
    range: (&str, &str),
    new: impl Fn() -> S,
    put: impl Fn(&mut S, &KeyValue),
) -> Result<(S, Position)> {
    let keys_only = GetOptions::new().with_keys_only();
    read(client, op, range, &keys_only, new, put).await
}

async fn read<S>(
    client: &Client,
    op: &'static str,
    range: (&str, &str),
    options: &GetOptions,
    new: impl Fn() -> S,
    put: impl Fn(&mut S, &KeyValue),
) -> Result<(S, Position)> {
    let mut starts = 0;
    loop {
        starts += 1;
        let mut into = new();
        let put = |entry: &KeyValue| put(&mut into, entry);
        match read_at_one_revision(client, op, range, options, put).await {
            Err(error) if error.kind() == ErrorKind::Outdated && starts < MOST_STARTS => {}
            done => return done.map(|position| (into, position)),
        }
    }
}

async fn read_at_one_revision(
    client: &Client,
    op: &'static str,
    (start, end): (&str, &str),
    options: &GetOptions,
    mut put: impl FnMut(&KeyValue),
) -> Result<Position> {
    let mut options = options.clone().with_range(end).with_limit(PAGE);
    let mut from = start.as_bytes().to_vec();
    let mut first: Option<Position> = None;
    loop {
        let page = client.get(op, &from, &options).await?;
        let at = position(op, page.header())?;
        let first = *first.get_or_insert(at);
        if first.cluster != at.cluster {
            return Err(Error::new(ErrorKind::Outdated, op)
                .because("the pages of one read were answered by different clusters"));
        }
        page.kvs().iter().for_each(&mut put);
        let Some(last) = page.kvs().last().filter(|_| page.more()) else {
            return Ok(first);
        };
        from = after_key(last.key().to_vec());
        options = options.with_revision(first.revision);
    }
}

/// The first key that may follow `key`.
pub(crate) fn after_key(mut key: Vec<u8>) -> Vec<u8> {
    key.push(0);
    key
}
