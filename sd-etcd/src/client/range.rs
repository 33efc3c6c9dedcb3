//! Reads the keys of a range, in pages.
//!
//! What a server sends decides how many pages there are, so a read ends after a number of keys and after a time.

use std::collections::BTreeSet;

use etcd_client::{GetOptions, GetResponse, KeyValue};
use sd_core::{Error, ErrorKind, Result};
use tokio::time::{Instant, timeout_at};

use crate::client::Client;
use crate::client::answer::{Position, position};

/// Keys that are read in one request.
const PAGE: i64 = 1000;
/// How often a read starts over because its revision was compacted between two pages.
const MOST_STARTS: u32 = 3;
/// Keys that are taken in one read. Ten times as many as a service has been seen to have.
const MOST_KEYS: usize = 1_000_000;

/// Puts every entry of the range, end excluded, into what `new` makes: as of one revision. Starts over with another one if it has
/// to.
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

/// What is in a range, which is everything below a folder.
#[derive(Debug, Default)]
pub(crate) struct Folders {
    /// What the keys of each folder have between the start of the range and the next slash.
    pub(crate) names: BTreeSet<Vec<u8>>,
    /// How many keys are in no folder.
    pub(crate) flat: usize,
}

/// The folders in the range. A page that ends within a folder is followed by what comes after that, so many keys in one folder cost nothing.
pub(crate) async fn read_folders(
    client: &Client,
    op: &'static str,
    (start, end): (&str, &str),
) -> Result<Folders> {
    let options = GetOptions::new().with_keys_only();
    let until = Instant::now() + client.config().read_timeout;
    let mut pages = Pages::new(client, op, (start, end), &options, until);
    let mut folders = Folders::default();
    while let Some(page) = pages.next().await? {
        let mut last = None;
        for entry in page.kvs() {
            last = folder(start, entry.key());
            match last {
                Some(folder) if folders.names.contains(folder) => {}
                Some(folder) => drop(folders.names.insert(folder.to_vec())),
                None => folders.flat += 1,
            }
        }
        if let Some(last) = last {
            pages.skip_to([start.as_bytes(), last, &[b'/' + 1]].concat());
        }
    }
    Ok(folders)
}

/// What a key has between `start` and the next slash; `None` if there is no slash.
pub(crate) fn folder<'a>(start: &str, key: &'a [u8]) -> Option<&'a [u8]> {
    let name = key.strip_prefix(start.as_bytes())?;
    let length = name.iter().position(|byte| *byte == b'/')?;
    name.get(..length)
}

async fn read<S>(
    client: &Client,
    op: &'static str,
    range: (&str, &str),
    options: &GetOptions,
    new: impl Fn() -> S,
    put: impl Fn(&mut S, &KeyValue),
) -> Result<(S, Position)> {
    let until = Instant::now() + client.config().read_timeout;
    let mut starts = 0;
    loop {
        starts += 1;
        let mut into = new();
        let pages = Pages::new(client, op, range, options, until);
        let put = |entry: &KeyValue| put(&mut into, entry);
        match read_at_one_revision(pages, put).await {
            Err(error) if error.kind() == ErrorKind::Outdated && starts < MOST_STARTS => {}
            done => return done.map(|position| (into, position)),
        }
    }
}

async fn read_at_one_revision(
    mut pages: Pages<'_>,
    mut put: impl FnMut(&KeyValue),
) -> Result<Position> {
    let mut first: Option<Position> = None;
    while let Some(page) = pages.next().await? {
        let at = position(pages.op, page.header())?;
        let first = *first.get_or_insert(at);
        if first.cluster != at.cluster {
            return Err(Error::new(ErrorKind::Outdated, pages.op)
                .because("the pages of one read were answered by different clusters"));
        }
        page.kvs().iter().for_each(&mut put);
        pages.stay_at(first.revision);
    }
    // There is always a first page.
    first.ok_or_else(|| pages.invalid("sent no page at all"))
}

/// The pages of a range, one after another.
struct Pages<'a> {
    client: &'a Client,
    op: &'static str,
    options: GetOptions,
    from: Vec<u8>,
    is_over: bool,
    seen: usize,
    until: Instant,
}

impl<'a> Pages<'a> {
    fn new(
        client: &'a Client,
        op: &'static str,
        (start, end): (&str, &str),
        options: &GetOptions,
        until: Instant,
    ) -> Self {
        Self {
            client,
            op,
            options: options.clone().with_range(end).with_limit(PAGE),
            from: start.as_bytes().to_vec(),
            is_over: false,
            seen: 0,
            until,
        }
    }

    /// The next page, which may be empty if it is the only one; `None` after the last.
    async fn next(&mut self) -> Result<Option<GetResponse>> {
        if self.is_over {
            return Ok(None);
        }
        let reading = self.client.get(self.op, &self.from, &self.options);
        let page = timeout_at(self.until, reading).await.map_err(|_| {
            Error::new(ErrorKind::Timeout, self.op).because(format!(
                "the server had more to send after {:?} and {} keys",
                self.client.config().read_timeout,
                self.seen
            ))
        })??;
        self.seen += page.kvs().len();
        if self.seen > MOST_KEYS {
            return Err(self.invalid(&format!("has more than {MOST_KEYS} keys here")));
        }
        let (first, last) = (page.kvs().first(), page.kvs().last());
        match last.filter(|_| page.more()) {
            Some(last) => {
                // A server that sends the same page again would send it for ever.
                if first.is_some_and(|first| first.key() < self.from.as_slice())
                    || last.key() < self.from.as_slice()
                {
                    return Err(self.invalid("sent keys before those that were asked for"));
                }
                self.from = after_key(last.key().to_vec());
            }
            None if page.more() => {
                return Err(self.invalid("says that there is more, and sends nothing"));
            }
            None => self.is_over = true,
        }
        Ok(Some(page))
    }

    /// Leaves out the keys before `from`.
    fn skip_to(&mut self, from: Vec<u8>) {
        self.from = from.max(std::mem::take(&mut self.from));
    }

    /// Reads the further pages as of this revision.
    fn stay_at(&mut self, revision: i64) {
        self.options = std::mem::take(&mut self.options).with_revision(revision);
    }

    fn invalid(&self, what: &str) -> Error {
        Error::new(ErrorKind::InvalidData, self.op).because(format!("the server {what}"))
    }
}

/// The first key that may follow `key`.
fn after_key(mut key: Vec<u8>) -> Vec<u8> {
    key.push(0);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_what_stands_before_the_next_slash() {
        for (key, name) in [
            (&b"/p/a/1"[..], Some(&b"a"[..])),
            (b"/p/a/b/1", Some(b"a")),
            (b"/p//1", Some(b"")),
            (b"/p/a", None),
            (b"/p/", None),
            (b"/p", None),
            (b"/q/a/1", None),
        ] {
            assert_eq!(folder("/p/", key), name);
        }
    }
}
