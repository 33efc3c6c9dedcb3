//! Text that a POSIX shell reads back unchanged.

use std::borrow::Cow;

/// `export NAME=value`, safe to `eval`.
pub(crate) fn export(name: &str, value: &str) -> String {
    format!("export {name}={}", quote(value))
}

/// `text` as one word of a shell command.
pub(crate) fn quote(text: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(format!("'{}'", text.replace('\'', r"'\''")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_words_stay_as_they_are() {
        assert_eq!(
            export("SD_TEST_ETCD", "http://127.0.0.1:2379"),
            "export SD_TEST_ETCD=http://127.0.0.1:2379"
        );
    }

    #[test]
    fn everything_else_survives_a_real_shell() {
        for text in [
            "",
            "a b",
            "it's",
            "$HOME `id` \"x\"",
            "line\nbreak",
            "a;b&c",
        ] {
            let output = std::process::Command::new("sh")
                .args(["-c", &format!("printf %s {}", quote(text))])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), text);
        }
    }
}
