//! Text of bounded length, made without building the whole. What a server sends may be as long as it likes.

use std::fmt::{self, Display, Write};

/// The longest text of [`brief`], in bytes.
const BRIEF_BYTES: usize = 256;

/// The longest text that is [`quoted`].
const QUOTED_BYTES: usize = 80;

/// The beginning of a text, at most 256 bytes long. `…` stands for what was left out.
pub fn brief(text: impl Display) -> String {
    cut(text, BRIEF_BYTES)
}

/// The beginning of a text in quotes and escaped, with room beside it for what is wrong with it.
pub(crate) fn quoted(text: &str) -> String {
    let mut quoted = cut(format_args!("{text:?}"), QUOTED_BYTES);
    if quoted.ends_with(CUT) {
        quoted.push('"');
    }
    quoted
}

/// The beginning of a text, at most `most` bytes long.
pub(crate) fn cut(text: impl Display, most: usize) -> String {
    let mut kept = Kept {
        text: String::new(),
        most,
    };
    if write!(kept, "{text}").is_err() && kept.text.len() <= most {
        let room = most.saturating_sub(CUT.len());
        let end = boundary(&kept.text, room);
        kept.text.truncate(end);
        kept.text.push_str(CUT);
    }
    kept.text
}

const CUT: &str = "…";

/// Takes what there is room for, and refuses the rest.
struct Kept {
    text: String,
    most: usize,
}

impl Write for Kept {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let room = self.most.saturating_sub(self.text.len());
        if part.len() <= room {
            self.text.push_str(part);
            return Ok(());
        }
        let fits = part.get(..boundary(part, room)).unwrap_or_default();
        self.text.push_str(fits);
        Err(fmt::Error)
    }
}

/// The last place at or before `at` where a character begins or the text ends.
fn boundary(text: &str, at: usize) -> usize {
    let at = at.min(text.len());
    (0..=at)
        .rev()
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_short_text_stays_and_a_long_one_is_cut() {
        assert_eq!(brief("why"), "why");
        assert_eq!(cut("12345678", 8), "12345678");
        assert_eq!(cut("123456789", 8), "12345…");
        assert_eq!(cut("öööööööö", 8), "öö…");
        assert_eq!(cut("ab", 1), "…");
    }

    #[test]
    fn a_quoted_text_is_short_however_much_of_it_is_escaped() {
        assert_eq!(quoted("a\nb"), r#""a\nb""#);
        let long = quoted(&"\u{202e}".repeat(1000));
        assert!(
            long.len() <= QUOTED_BYTES + 1 && long.ends_with("…\""),
            "{long}"
        );
    }

    #[test]
    fn the_rest_of_a_long_text_is_not_even_made() {
        struct Endless;
        impl Display for Endless {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                loop {
                    f.write_str("and so on ")?;
                }
            }
        }
        assert_eq!(brief(Endless).len(), BRIEF_BYTES);
    }

    proptest! {
        #[test]
        fn no_text_is_longer_than_allowed(text in ".{0,40}", most in 3..40usize) {
            let shown = cut(&text, most);
            prop_assert!(shown.len() <= most);
            prop_assert!(shown == text || shown.ends_with(CUT));
        }
    }
}
