//! What is told of a change, on the channel of its service. Pure functions.
//!
//! ```text
//! put 9f86d081884c7d65 42 5b1c9a7e03d2f486 e3069283f1b2a5d4 10000 the-id
//! live 00f1e2d3c4b5a697 3 1700000000000000 - {"service":"s", …}
//! ```
//!
//! They are: what was done, in which history, which version that made, the sum of all changes before and after it, in how many ms the
//! record ends then, and which record it is; after the end of the line, its new value. A sum is a hash over a change and the sum before.

use std::time::Duration;

/// One change of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change<'a> {
    pub(crate) history: &'a str,
    /// The version after it.
    pub(crate) version: u64,
    /// The sum of all changes before it.
    pub(crate) before: &'a str,
    /// The sum with it.
    pub(crate) sum: &'a str,
    pub(crate) done: Done<'a>,
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done<'a> {
    /// A record has this value now.
    Put {
        id: &'a [u8],
        value: &'a [u8],
        ends_in: Duration,
    },
    /// A record has ended.
    Ended { id: &'a [u8] },
    /// More than is told one by one, or what this version does not know: read everything.
    More,
}

/// What a message says. `None` for what another program sent there.
pub(crate) fn decode(message: &[u8]) -> Option<Change<'_>> {
    let end = message.iter().position(|byte| *byte == b'\n')?;
    let (line, value) = (message.get(..end)?, message.get(end + 1..)?);
    let mut words = line.splitn(7, |byte| *byte == b' ');
    let (op, history, version) = (words.next()?, words.next()?, words.next()?);
    let (before, sum) = (words.next()?, words.next()?);
    let (ends_in, id) = (number(words.next()?)?, words.next()?);
    let done = match op {
        b"put" => Done::Put {
            id,
            value,
            ends_in: Duration::from_millis(ends_in),
        },
        b"end" => Done::Ended { id },
        _ => Done::More,
    };
    Some(Change {
        history: text(history)?,
        version: number(version)?,
        before: text(before)?,
        sum: text(sum)?,
        done,
    })
}

fn text(word: &[u8]) -> Option<&str> {
    std::str::from_utf8(word).ok()
}

fn number(digits: &[u8]) -> Option<u64> {
    text(digits)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_message_says_what_was_done_and_which_version_that_made() {
        let change = |version, done| {
            Some(Change {
                history: "h",
                version,
                before: "b",
                sum: "s",
                done,
            })
        };
        let (id, value) = (&b"two words"[..], &b"a value\nof two lines"[..]);
        let ends_in = Duration::from_millis(1500);
        let put = b"put h 7 b s 1500 two words\na value\nof two lines";
        assert_eq!(decode(put), change(7, Done::Put { id, value, ends_in }));
        assert_eq!(
            decode(b"end h 8 b s 0 two words\n"),
            change(8, Done::Ended { id })
        );
        for all in [&b"all h 9 b s 0 \n"[..], b"later h 9 b s 0 of it\n more"] {
            assert_eq!(decode(all), change(9, Done::More));
        }
        for other in [
            &b""[..],
            b"hello",
            b"\n",
            b"put h\n",
            b"put h x b s 0 i\n",
            b"put h 7 b s 0\nv",
            b"put h 7 b s -1 i\n",
            b"put \xff 7 b s 0 i\n",
            b"put h 7 \xff s 0 i\n",
        ] {
            assert_eq!(decode(other), None);
        }
    }

    proptest! {
        #[test]
        fn any_message_is_read_or_refused(message in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = decode(&message);
        }
    }
}
