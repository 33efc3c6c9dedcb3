//! One answer of Consul's HTTP interface: status, what its headers tell, and a body of bounded size.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Response;
use reqwest::header::{AGE, HeaderMap, RETRY_AFTER};
use sd_backend::without_input;
use sd_core::{Error, ErrorKind, Result};
use serde::de::{DeserializeOwned, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::error::Category;
use tokio::sync::Semaphore;

use crate::client::error::{refused, says_denied, unanswered};

/// The largest answer that is read: 100 000 instances with all that Consul says of them.
const MOST_BYTES: usize = 256 * 1024 * 1024;

/// From this size on a body is decoded on a thread for blocking work. A runtime thread would do nothing else for a millisecond.
const LARGE: usize = 64 * 1024;

/// What Consul answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) meta: Meta,
    /// What a proxy answers by itself has no index.
    has_index: bool,
    retry_after: Option<Duration>,
    body: Vec<u8>,
}

/// What the headers tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    /// The position to wait from. Never 0, which would not wait.
    pub(crate) index: u64,
    /// Whether the server that answered knows one that leads.
    pub(crate) known_leader: bool,
    /// For how long the server, or the agent's cache, has been out of touch.
    pub(crate) staleness: Duration,
    /// Whether entries were left out because the token may not read them.
    filtered: bool,
    /// Whether what no rule allows is forbidden.
    default_deny: bool,
}

impl Meta {
    fn read(headers: &HeaderMap) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let number = |name: &str| text(name).and_then(|text| text.parse::<u64>().ok());
        let contact = Duration::from_millis(number("x-consul-lastcontact").unwrap_or(0));
        let age = Duration::from_secs(number(AGE.as_str()).unwrap_or(0));
        Self {
            index: number("x-consul-index").unwrap_or(1).max(1),
            // An agent that streams changes to itself always says that it knows none.
            known_leader: text("x-consul-knownleader") != Some("false")
                || text("x-consul-query-backend") == Some("streaming"),
            staleness: contact.max(age),
            filtered: text("x-consul-results-filtered-by-acls") == Some("true"),
            default_deny: text("x-consul-default-acl-policy") == Some("deny"),
        }
    }
}

impl Answer {
    /// Reads an answer to its end.
    pub(crate) async fn read(op: &'static str, mut response: Response) -> Result<Self> {
        let status = response.status().as_u16();
        let meta = Meta::read(response.headers());
        let has_index = response.headers().contains_key("x-consul-index");
        let seconds = response.headers().get(RETRY_AFTER);
        let seconds = seconds.and_then(|value| value.to_str().ok()?.parse().ok());
        let expected = response
            .content_length()
            .and_then(|length| usize::try_from(length).ok())
            .unwrap_or(0);
        let mut body = Vec::with_capacity(expected.min(MOST_BYTES));
        while let Some(chunk) = response.chunk().await.map_err(|e| unanswered(op, e))? {
            if body.len() + chunk.len() > MOST_BYTES {
                return Err(Error::new(ErrorKind::InvalidData, op)
                    .because(format!("Consul's answer has more than {MOST_BYTES} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Self {
            status,
            meta,
            has_index,
            retry_after: seconds.map(Duration::from_secs),
            body,
        })
    }

    /// Itself, if it says that the request succeeded.
    ///
    /// # Errors
    /// What it says otherwise.
    pub(crate) fn success(self, op: &'static str) -> Result<Self> {
        if (200..300).contains(&self.status) {
            return Ok(self);
        }
        Err(refused(op, self.status, self.retry_after, &self.text()))
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// `InvalidData` says where it is not as expected. It repeats nothing of the body: a gateway may have put our token there.
    pub(crate) fn json<T: DeserializeOwned>(&self, op: &'static str) -> Result<T> {
        serde_json::from_slice(&self.body).map_err(|error| unreadable(op, &error))
    }

    /// The body as a JSON list, one element after the other, so that they are never all in memory beside what is made of them. `null` is
    /// an empty list.
    ///
    /// # Errors
    /// As [`json`](Self::json). `take` may have been given elements before.
    pub(crate) fn each<T: DeserializeOwned>(
        &self,
        op: &'static str,
        take: impl FnMut(T),
    ) -> Result<()> {
        let mut json = serde_json::Deserializer::from_slice(&self.body);
        let each = Each {
            take,
            element: PhantomData,
        };
        json.deserialize_any(each)
            .and_then(|()| json.end())
            .map_err(|error| unreadable(op, &error))
    }

    /// Lets `decode` read the answer: here if it is small, else on a thread for blocking work. Of large answers, one at a time is decoded
    /// with the same `turn`.
    ///
    /// # Cancel safety
    /// What a dropped call has begun to decode is decoded, and dropped then.
    ///
    /// # Errors
    /// Those of `decode`; `Unavailable` if the runtime ends meanwhile.
    pub(crate) async fn decode<T: Send + 'static>(
        self,
        op: &'static str,
        turn: &Arc<Semaphore>,
        decode: impl FnOnce(Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        if self.body.len() < LARGE {
            return decode(self);
        }
        // Fails only if the semaphore is closed, which does not happen.
        let turn = Arc::clone(turn).acquire_owned().await;
        let decoding = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            decode(self)
        });
        decoding
            .await
            .unwrap_or_else(|error| Err(Error::new(ErrorKind::Unavailable, op).with_source(error)))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Replaces the text of a refusal.
    pub(crate) fn edit_refusal(&mut self, edit: impl FnOnce(&str) -> String) {
        if self.status >= 400 {
            self.body = edit(&self.text()).into_bytes();
        }
    }

    /// Whether it says that there is no such key.
    pub(crate) fn says_no_key(&self) -> bool {
        self.status == 404 && self.body.is_empty() && self.has_index
    }

    /// How many bytes the body has.
    pub(crate) fn len(&self) -> usize {
        self.body.len()
    }

    /// Whether it says that the token does not allow what was asked for.
    pub(crate) fn denies(&self) -> bool {
        match self.status {
            401 | 403 => true,
            // A transaction, and what a server answered to the agent.
            409 | 500 => says_denied(&self.text()),
            _ => false,
        }
    }

    /// Whether it lacks what we may not read, so that it must not be taken for everything. Without a token, Consul does not
    /// say so: an empty list may then be anything.
    pub(crate) fn hides(&self, has_token: bool) -> bool {
        let empty = matches!(self.body.trim_ascii(), b"[]" | b"{}" | b"null");
        self.meta.filtered || (!has_token && self.meta.default_deny && empty)
    }
}

/// Hands on the elements of a list.
struct Each<T, F> {
    take: F,
    element: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>, F: FnMut(T)> Visitor<'de> for Each<T, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sequence")
    }

    fn visit_unit<E>(self) -> std::result::Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut all: A) -> std::result::Result<(), A::Error> {
        while let Some(element) = all.next_element()? {
            (self.take)(element);
        }
        Ok(())
    }
}

/// An answer that is not the JSON that was asked for, as ours.
fn unreadable(op: &'static str, error: &serde_json::Error) -> Error {
    let why = match error.classify() {
        // Its words are few and its own.
        Category::Syntax | Category::Eof => error.to_string(),
        Category::Data | Category::Io => {
            let (line, column) = (error.line(), error.column());
            let text = error.to_string();
            let text = text.strip_suffix(&format!(" at line {line} column {column}"));
            let why = without_input(text.unwrap_or_default());
            format!("{why} at line {line} column {column}")
        }
    };
    Error::new(ErrorKind::InvalidData, op).because(format!("Consul's answer cannot be read: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, value.parse().unwrap());
        }
        headers
    }

    fn answer(pairs: &[(&'static str, &'static str)], body: &str) -> Answer {
        Answer {
            status: 200,
            meta: Meta::read(&headers(pairs)),
            has_index: headers(pairs).contains_key("x-consul-index"),
            retry_after: None,
            body: body.as_bytes().to_vec(),
        }
    }

    #[test]
    fn an_index_is_never_zero_whatever_the_header_says() {
        for (header, index) in [("7", 7), ("0", 1), ("-1", 1), ("x", 1)] {
            let meta = Meta::read(&headers(&[("x-consul-index", header)]));
            assert_eq!(meta.index, index, "{header}");
        }
        assert_eq!(Meta::read(&headers(&[])).index, 1);
    }

    #[test]
    fn the_age_of_a_stale_or_cached_answer_is_told() {
        let stale = Meta::read(&headers(&[
            ("x-consul-lastcontact", "1500"),
            ("x-consul-knownleader", "false"),
        ]));
        assert_eq!(stale.staleness, Duration::from_millis(1500));
        assert!(!stale.known_leader);
        let streamed = Meta::read(&headers(&[
            ("x-consul-query-backend", "streaming"),
            ("x-consul-knownleader", "false"),
        ]));
        assert!(streamed.known_leader);
        let cached = Meta::read(&headers(&[("age", "3"), ("x-cache", "HIT")]));
        assert_eq!(cached.staleness, Duration::from_secs(3));
        assert!(cached.known_leader);
    }

    #[test]
    fn that_a_key_is_not_there_is_believed_of_consul_alone() {
        let index = [("x-consul-index", "7")];
        for (headers, body, believed) in [
            (&index[..], "", true),
            (&index[..], "404 page not found", false),
            (&[][..], "", false),
        ] {
            let answer = Answer {
                status: 404,
                ..answer(headers, body)
            };
            assert_eq!(answer.says_no_key(), believed, "{body}");
        }
    }

    #[test]
    fn a_denial_is_known_by_its_status_or_its_words() {
        let refused =
            r#"{"Errors":[{"OpIndex":0,"What":"Permission denied: token lacks key:write"}]}"#;
        for (status, body, denies) in [
            (403, "", true),
            (409, refused, true),
            (
                409,
                r#"{"Errors":[{"OpIndex":0,"What":"lock is held"}]}"#,
                false,
            ),
            (500, "rpc error making call: ACL not found", true),
            (500, "No cluster leader", false),
            (200, "Permission denied", false),
        ] {
            let answer = Answer {
                status,
                ..answer(&[], body)
            };
            assert_eq!(answer.denies(), denies, "{status} {body}");
        }
    }

    #[test]
    fn an_answer_that_cannot_be_read_says_where_and_repeats_nothing() {
        for (body, why) in [
            (
                r#"[{"Node": "sesame"}]"#,
                "invalid type: string, expected struct Node at line 1 column 18",
            ),
            (r#"[{"Node": {"Name": "sesame"}}]"#, "missing field `Node`"),
            (
                r#""sesame""#,
                "invalid type: string, expected a sequence at line 1",
            ),
            ("sesame", "expected value at line 1 column 1"),
            ("[", "EOF"),
            (
                r#"[{"Node": {"Node": "n"}, "Service": {"ID": "sesame", "Port": "sesame"}}]"#,
                "expected i64",
            ),
        ] {
            let read = answer(&[], body).json::<Vec<crate::codec::HealthEntry>>("test");
            let report = read.unwrap_err().report().to_string();
            assert!(report.contains(why), "{report}");
            assert!(!report.contains("sesame"), "{report}");
        }
    }

    #[test]
    fn the_elements_of_a_list_are_read_one_by_one_and_a_list_that_is_cut_is_an_error() {
        let read = |body: &str| {
            let mut found: Vec<u8> = Vec::new();
            let read = answer(&[], body).each("test", |element| found.push(element));
            (read.is_ok(), found)
        };
        assert_eq!(read("[1, 2]\n"), (true, vec![1, 2]));
        assert_eq!(read("null"), (true, vec![]));
        for cut in ["[1, 2", "[1, 2]3", "[1, 2, x]", "[1, 2, \"\"]"] {
            assert_eq!(read(cut), (false, vec![1, 2]), "{cut}");
        }
        assert!(!read("{}").0 && !read("").0);
    }

    #[tokio::test]
    async fn a_large_answer_is_decoded_off_the_runtime_and_one_at_a_time() {
        let turn = Arc::new(Semaphore::new(1));
        let here = std::thread::current().id();
        let decoded_on = async |bytes: usize| {
            let answer = answer(&[], &"x".repeat(bytes));
            let free = Arc::clone(&turn);
            let decode = move |_| Ok((std::thread::current().id(), free.available_permits()));
            answer.decode("test", &turn, decode).await.unwrap()
        };
        assert_eq!(decoded_on(LARGE - 1).await, (here, 1));
        let (thread, turns) = decoded_on(LARGE).await;
        assert!(thread != here && turns == 0);
        let panicking = answer(&[], &"x".repeat(LARGE));
        let failed = panicking.decode("test", &turn, |_| -> Result<()> { panic!("of the test") });
        assert_eq!(failed.await.unwrap_err().kind(), ErrorKind::Unavailable);
        assert_eq!(turn.available_permits(), 1);
    }

    #[test]
    fn a_list_that_rights_emptied_is_told_from_an_empty_one() {
        let deny = [("x-consul-default-acl-policy", "deny")];
        assert!(answer(&deny, "[]\n").hides(false));
        assert!(!answer(&deny, "[]").hides(true));
        assert!(!answer(&deny, "[{}]").hides(false));
        let allow = [("x-consul-default-acl-policy", "allow")];
        assert!(!answer(&allow, "[]").hides(false));
        let filtered = [("x-consul-results-filtered-by-acls", "true")];
        assert!(answer(&filtered, "[{}]").hides(true));
    }
}
