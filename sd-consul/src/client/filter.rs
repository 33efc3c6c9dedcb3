//! Text in Consul's filter language.

/// Text as Consul's filter language has it. What holds both kinds of quotes cannot be written, and is refused before.
pub(crate) fn quoted(text: &str) -> String {
    if text.contains('"') {
        format!("`{text}`")
    } else {
        format!("\"{}\"", text.replace('\\', "\\\\"))
    }
}

/// A pattern that matches this id of a service of ours, in letters of either case.
pub(crate) fn ignoring_case(id: &str) -> String {
    // Of what is in such an id, a dot alone means something else in a pattern.
    format!("(?i)^{}$", id.replace('.', "\\."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_quoted_and_patterns_are_escaped() {
        assert_eq!(quoted(r"a\b"), r#""a\\b""#);
        assert_eq!(quoted("a\"b"), "`a\"b`");
        assert_eq!(ignoring_case("a.b:C~2F"), r"(?i)^a\.b:C~2F$");
    }
}
