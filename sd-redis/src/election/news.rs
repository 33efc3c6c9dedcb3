//! What the scripts publish when an election has changed: `<first candidate> <its token> <candidates that are gone>`.
//!
//! A message may be lost, and any program that may publish there can write one. So a message only says when to read, except that it may say
//! that a candidate is the first: the server published that in the step in which it became so.

use sd_core::port::CandidateId;

/// One message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct News<'a> {
    /// Who is the first, with its token.
    first: Option<(CandidateId, u64)>,
    /// Who is not there any more: ids with spaces between them, or a star for anyone.
    gone: &'a str,
}

impl<'a> News<'a> {
    /// `None` if another program wrote this.
    pub(crate) fn parse(message: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(message).ok()?;
        let mut words = text.splitn(3, ' ');
        let (id, token) = (words.next()?, words.next()?);
        let first = match id {
            "-" => None,
            id => Some((id.parse().ok()?, token.parse().ok()?)),
        };
        Some(Self {
            first,
            gone: words.next().unwrap_or_default(),
        })
    }

    /// Whether this candidate, which joined with this token, is the first.
    pub(crate) fn is_first(&self, candidate: CandidateId, token: u64) -> bool {
        self.first == Some((candidate, token))
    }

    /// Whether this candidate may not be there any more.
    pub(crate) fn may_have_lost(&self, candidate: CandidateId) -> bool {
        let is_it = |word: &str| {
            let id = word.parse::<CandidateId>();
            word == "*" || id.is_ok_and(|id| id == candidate)
        };
        self.gone.split(' ').any(is_it)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(value: u64) -> CandidateId {
        CandidateId::from_u64(value).unwrap()
    }

    #[test]
    fn a_message_tells_who_is_first_and_who_is_gone() {
        let message = format!("{} 1796037555203626 {} {}", id(1), id(2), id(3));
        let news = News::parse(message.as_bytes()).unwrap();
        let token = 1_796_037_555_203_626;
        assert!(news.is_first(id(1), token));
        assert!(!news.is_first(id(2), token) && !news.is_first(id(1), token - 1));
        let lost = [1, 2, 3].map(|value| news.may_have_lost(id(value)));
        assert_eq!(lost, [false, true, true]);
        let none = News::parse(b"- 0 *").unwrap();
        assert!(none.may_have_lost(id(7)) && !none.is_first(id(7), 0));
        assert!(!News::parse(b"- 0 ").unwrap().may_have_lost(id(7)));
    }

    #[test]
    fn what_another_program_published_is_no_news() {
        for other in [&b""[..], b"a", b"host 7 ", b"1 -7 ", b"1 1.5 ", b"\xff 1 "] {
            assert_eq!(News::parse(other), None, "{other:?}");
        }
    }
}
