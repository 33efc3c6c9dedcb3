//! Text from outside that cannot move a cursor, break a line or reorder what is beside it.

use std::fmt::{self, Write};

/// Writes text as it is, except that control characters, line ends and invisible characters are escaped: `\n`, `\u{202e}`.
/// For names, keys, addresses, values and errors from outside, wherever they are shown or logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Printable<'a>(pub &'a str);

impl Printable<'_> {
    /// Whether a character is written as it is.
    pub fn is_printable(c: char) -> bool {
        if c.is_ascii() {
            return !c.is_ascii_control();
        }
        if is_ignorable(c) {
            return false;
        }
        // As `Debug` of text decides, which leaves what combines with the character before it.
        let mut after_another = [b'a'; 1 + 4];
        let length = c.encode_utf8(&mut after_another[1..]).len();
        let text = std::str::from_utf8(&after_another[..=length]).unwrap_or_default();
        text.escape_debug().nth(1) == Some(c)
    }
}

/// Whether Unicode has it shown as nothing (`Default_Ignorable_Code_Point`), among the letters, marks and symbols; `Debug` escapes the
/// others. A blank Braille pattern is shown as nothing, too.
fn is_ignorable(c: char) -> bool {
    matches!(
        c,
        '\u{34f}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{2800}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{ffa0}'
            | '\u{e0100}'..='\u{e01ef}'
    )
}

/// What no name and no path may contain, so that it can be written as it is, on one line.
pub(crate) fn breaks_lines(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
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
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_shown_needs_no_escape_and_breaks_no_line(text in any::<String>()) {
            let shown = Printable(&text).to_string();
            prop_assert!(shown.chars().all(Printable::is_printable), "{shown:?}");
            prop_assert!(!shown.contains(breaks_lines), "{shown:?}");
        }
    }

    #[test]
    fn what_moves_the_cursor_or_hides_is_escaped_and_the_rest_stays() {
        for (text, shown) in [
            ("a\u{1b}[2Jb\nü", "a\\u{1b}[2Jb\\nü"),
            ("\u{9b}2J", "\\u{9b}2J"),
            ("\u{202e}txt\u{200b}", "\\u{202e}txt\\u{200b}"),
            ("a\u{2028}b", "a\\u{2028}b"),
            (
                "a\u{3164}b\u{fe0f}\u{feff}",
                "a\\u{3164}b\\u{fe0f}\\u{feff}",
            ),
            ("o\u{308} \\ \" ' 😀", "o\u{308} \\ \" ' 😀"),
        ] {
            assert_eq!(Printable(text).to_string(), shown);
        }
    }
}
