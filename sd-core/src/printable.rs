//! Text from outside that cannot move a cursor, break a line or reorder what is beside it.

use std::fmt::{self, Write};

/// Writes text as it is, except that control characters, line ends and invisible characters are escaped: `\n`, `\u{202e}`.
/// For names, keys and values from a registry on their way to a terminal or a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Printable<'a>(pub &'a str);

impl Printable<'_> {
    /// Whether a character is written as it is.
    pub fn is_printable(c: char) -> bool {
        if c.is_ascii() {
            return !c.is_ascii_control();
        }
        // As `Debug` of text decides, which leaves what combines with the character before it.
        let mut after_another = [b'a'; 1 + 4];
        let length = c.encode_utf8(&mut after_another[1..]).len();
        let text = std::str::from_utf8(&after_another[..=length]).unwrap_or_default();
        text.escape_debug().nth(1) == Some(c)
    }
}

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if Self::is_printable(c) {
                f.write_char(c)?;
            } else {
                write!(f, "{}", c.escape_default())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_the_cursor_or_hides_is_escaped_and_the_rest_stays() {
        for (text, shown) in [
            ("a\u{1b}[2Jb\nü", "a\\u{1b}[2Jb\\nü"),
            ("\u{9b}2J", "\\u{9b}2J"),
            ("\u{202e}txt\u{200b}", "\\u{202e}txt\\u{200b}"),
            ("a\u{2028}b", "a\\u{2028}b"),
            ("o\u{308} \\ \" ' 😀", "o\u{308} \\ \" ' 😀"),
        ] {
            assert_eq!(Printable(text).to_string(), shown);
        }
    }
}
