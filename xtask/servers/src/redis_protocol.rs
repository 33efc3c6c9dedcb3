//! What an operator asks of Redis: one command over a connection of its own, in the protocol RESP.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Instant;

use crate::local_server::CHECKED_WITHIN;
use crate::tcp::{self, End};

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) struct Operator {
    pub(crate) user: String,
    pub(crate) password: String,
}

/// One command, after a login if there is an operator.
///
/// Returns a text or a number as text, an empty text for nil, and an array as it is on the wire.
///
/// # Errors
/// Redis refuses the login or the command, or no answer comes.
pub(crate) fn ask(
    server: SocketAddr,
    operator: Option<&Operator>,
    words: &[&str],
) -> io::Result<String> {
    let exchanged = match operator {
        None => exchange(server, &request(words), |bytes| {
            end_of_replies(bytes, 1).is_some()
        }),
        Some(Operator { user, password }) => {
            let question = request(&["AUTH", user, password]) + &request(words);
            exchange(server, &question, |bytes| {
                end_of_replies(bytes, 2).is_some()
            })
        }
    };
    let replied = exchanged.and_then(|answer| {
        let mut rest = answer.as_slice();
        if operator.is_some() {
            reply(rest)?;
            let login = end_of_replies(rest, 1).unwrap_or_default();
            rest = rest.get(login..).unwrap_or_default();
        }
        reply(rest)
    });
    replied.map_err(|error| {
        let command = words.join(" ");
        io::Error::new(error.kind(), format!("{server} {command}: {error}"))
    })
}

/// The texts of an array as it is on the wire, also of those inside.
pub(crate) fn texts(array: &str) -> Vec<&str> {
    let (mut texts, mut rest) = (Vec::new(), array);
    while let Some((head, tail)) = rest.split_once("\r\n") {
        rest = tail;
        let length = head.strip_prefix('$').map(str::parse::<usize>);
        // Nothing follows nil.
        if let Some(Ok(length)) = length
            && let Some(text) = tail.get(..length)
        {
            texts.push(text);
            rest = tail.get(length + 2..).unwrap_or_default();
        }
    }
    texts
}

fn exchange(
    server: SocketAddr,
    question: &str,
    is_whole: fn(&[u8]) -> bool,
) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + CHECKED_WITHIN;
    tcp::ask(server, question.as_bytes(), End::Whole(is_whole), deadline)
}

/// A command as RESP has it: an array of texts.
fn request(words: &[&str]) -> String {
    let texts = words
        .iter()
        .map(|word| format!("${}\r\n{word}\r\n", word.len()));
    format!("*{}\r\n{}", words.len(), texts.collect::<String>())
}

/// Where so many replies in `bytes` end. None if they are not whole.
fn end_of_replies(bytes: &[u8], count: usize) -> Option<usize> {
    let (mut end, mut missing) = (0_usize, count);
    while missing > 0 {
        let rest = bytes.get(end..)?;
        let line = rest.windows(2).position(|two| two == b"\r\n")?;
        let number = std::str::from_utf8(rest.get(1..line)?).ok();
        // That of nil is -1, and nothing follows.
        let number = number.and_then(|number| number.parse().ok());
        missing -= 1;
        end += line + 2;
        match (rest.first(), number) {
            (Some(b'$'), Some(length)) => end = end.checked_add(length)?.checked_add(2)?,
            (Some(b'*'), Some(length)) => missing = missing.checked_add(length)?,
            _ => {}
        }
    }
    (end <= bytes.len()).then_some(end)
}

fn reply(answer: &[u8]) -> io::Result<String> {
    let invalid = || io::Error::new(ErrorKind::InvalidData, "half an answer, or no RESP");
    let whole = end_of_replies(answer, 1).and_then(|end| answer.get(..end));
    let whole = String::from_utf8_lossy(whole.ok_or_else(invalid)?);
    let (first, rest) = whole.split_once("\r\n").ok_or_else(invalid)?;
    let mut first = first.chars();
    let kind = first.next().ok_or_else(invalid)?;
    let said = first.as_str();
    match kind {
        '+' | ':' => Ok(said.to_owned()),
        '-' => Err(io::Error::other(said.to_owned())),
        // Nothing follows nil.
        '$' => Ok(rest.strip_suffix("\r\n").unwrap_or_default().to_owned()),
        '*' => Ok(whole.into_owned()),
        _ => Err(invalid()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::tcp::tests::server_that_answers;

    #[test]
    fn each_word_is_sent_as_it_is() {
        let sent = request(&["SET", "a b", "größe\r\n"]);
        assert_eq!(sent, "*3\r\n$3\r\nSET\r\n$3\r\na b\r\n$9\r\ngröße\r\n\r\n");
    }

    #[test]
    fn a_reply_is_a_text_a_number_or_an_error() {
        let said = |on_the_wire: &str| reply(on_the_wire.as_bytes()).unwrap();
        assert_eq!(said("+PONG\r\n"), "PONG");
        assert_eq!(said(":3\r\n"), "3");
        assert_eq!(said("$4\r\na\r\nb\r\n"), "a\r\nb");
        assert_eq!(said("$0\r\n\r\n"), "");
        assert_eq!(said("$-1\r\n"), "");
        let nested = "*2\r\n*1\r\n$2\r\n\r\n\r\n:1\r\n";
        assert_eq!(said(nested), nested);
        let refused = reply(b"-LOADING Redis is loading\r\n").unwrap_err();
        assert_eq!(refused.to_string(), "LOADING Redis is loading");
        assert!(reply("größe\r\n".as_bytes()).is_err());
        for length in 0..nested.len() {
            assert!(reply(&nested.as_bytes()[..length]).is_err(), "{length}");
        }
        let endless = format!("*{0}\r\n${0}\r\n", usize::MAX);
        assert!(reply(endless.as_bytes()).is_err());
    }

    #[test]
    fn the_texts_of_an_array_are_told_without_what_is_between() {
        let array = "*4\r\n$4\r\nname\r\n$5\r\n$3\r\na\r\n*1\r\n$-1\r\n:7\r\n";
        assert_eq!(texts(array), ["name", "$3\r\na"]);
        assert_eq!(texts("*1\r\n$9\r\nhalf"), [""; 0]);
    }

    #[test]
    fn an_operator_logs_in_before_it_asks() {
        let operator = Operator {
            user: "op".to_owned(),
            password: "secret".to_owned(),
        };
        let asked = |answer: &'static str| {
            let (server, serving) =
                server_that_answers(b"PING\r\n", |stream| stream.write_all(answer.as_bytes()));
            let said = ask(server, Some(&operator), &["PING"]);
            (said, serving.join().unwrap())
        };
        let (said, sent) = asked("+OK\r\n+PONG\r\n");
        assert_eq!(said.unwrap(), "PONG");
        assert_eq!(
            sent,
            request(&["AUTH", "op", "secret"]) + &request(&["PING"])
        );
        let (said, _) = asked("-WRONGPASS no such user\r\n-NOAUTH\r\n");
        let error = said.unwrap_err().to_string();
        assert!(
            error.contains("WRONGPASS") && !error.contains("secret"),
            "{error}"
        );
    }
}
