//! The bytes of a request as they come, and whether they end with it.
//!
//! hyper keeps what it reads beyond a request, and does not tell. That may be the begin of the next head, for which a client has less time
//! than for a rest.

/// What has come since the last request ended.
#[derive(Debug)]
pub(super) struct RequestBytes {
    part: Part,
    /// How many bytes have come after the head.
    after_head: u64,
    /// The line that is not over yet has something in it.
    is_line_begun: bool,
    /// The last byte ended an empty line.
    ends_with_empty_line: bool,
}

/// Which part of a request comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// Empty lines may precede a head.
    Before,
    /// An empty line ends it.
    Head,
    AfterHead,
}

impl RequestBytes {
    pub(super) const NONE: Self = Self {
        part: Part::Before,
        after_head: 0,
        is_line_begun: false,
        ends_with_empty_line: false,
    };

    /// These have come.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.after_head += u64::from(self.part == Part::AfterHead);
            self.ends_with_empty_line = false;
            match byte {
                b'\n' => {
                    self.ends_with_empty_line = !std::mem::take(&mut self.is_line_begun);
                    if self.part == Part::Head && self.ends_with_empty_line {
                        self.part = Part::AfterHead;
                    }
                }
                b'\r' => {}
                _ => {
                    self.is_line_begun = true;
                    if self.part == Part::Before {
                        self.part = Part::Head;
                    }
                }
            }
        }
    }

    /// Whether they end with the request, whose body has so many bytes. A body without a length ends with an empty line, which the begin of
    /// a head does not.
    pub(super) fn end_with_request(&self, body_bytes: Option<u64>) -> bool {
        match body_bytes {
            Some(count) => self.part == Part::AfterHead && self.after_head == count,
            None => self.ends_with_empty_line,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_request_is_told_from_what_was_sent_ahead() {
        let head = "POST / HTTP/1.1\r\nhost: h\r\n\r\n";
        let end = |bytes: String, body_bytes| {
            let mut at_once = RequestBytes::NONE;
            at_once.add(bytes.as_bytes());
            let mut one_by_one = RequestBytes::NONE;
            bytes.bytes().for_each(|byte| one_by_one.add(&[byte]));
            let ends = at_once.end_with_request(body_bytes);
            assert_eq!(ends, one_by_one.end_with_request(body_bytes), "{bytes:?}");
            ends
        };
        for before in ["", "\r\n", "\n\n"] {
            assert!(end(format!("{before}{head}"), Some(0)));
            assert!(end(format!("{before}{head}\n\r\n\n"), Some(4)));
            assert!(end(format!("{before}{head}2\r\n{{}}\r\n0\r\n\r\n"), None));
        }
        assert!(end("GET / HTTP/1.1\nhost: h\n\n".to_owned(), Some(0)));
        for ahead in ["G", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nhost: h\r\n"] {
            assert!(!end(format!("{head}{ahead}"), Some(0)));
            assert!(!end(format!("{head}0\r\n\r\n{ahead}"), None));
        }
        // Not all of the body has come.
        assert!(!end(format!("{head}ab"), Some(3)));
    }
}
