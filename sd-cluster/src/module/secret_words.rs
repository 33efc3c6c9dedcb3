//! Hides what may be secret in JSON.

use sd_core::{Error, Result};
use serde_json::Value;

/// What stands in place of a secret.
const HIDDEN: &str = "***";
/// The words of modules in Go, and some more.
const WORDS: [&str; 13] = [
    "password",
    "secret",
    "token",
    "credentials",
    "pwd",
    "apikey",
    "private_key",
    "dsn",
    "passwd",
    "passphrase",
    "access_key",
    "authorization",
    "cookie",
];

/// The words by which secrets are known in JSON: a value is one if the names of the fields that lead to it, joined by dots, contain such a
/// word, in whatever case, and with `_` and `-` or without. The user and the password of a URL are hidden as well, wherever it stands: all
/// up to the last `@` before white space or a quote, since passwords are often written without escaping.
///
/// ```
/// use sd_cluster::SecretWords;
///
/// let words = SecretWords::default().with("iban").without("token");
/// let hidden = words.hide(br#"{"iban": 1, "token": "t", "db": {"password": "p"}}"#)?;
/// assert_eq!(hidden, r#"{"db":{"password":"***"},"iban":"***","token":"t"}"#);
/// # Ok::<(), sd_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretWords(Vec<String>);

impl Default for SecretWords {
    /// `password`, `secret`, `token`, `credentials`, `pwd`, `apikey`, `private_key`, `dsn`, `passwd`, `passphrase`, `access_key`,
    /// `authorization` and `cookie`.
    fn default() -> Self {
        Self(WORDS.map(folded).into())
    }
}

impl SecretWords {
    /// Adds a word. An empty one is none.
    #[must_use]
    pub fn with(mut self, word: impl AsRef<str>) -> Self {
        let word = folded(word.as_ref());
        if !word.is_empty() && !self.0.contains(&word) {
            self.0.push(word);
        }
        self
    }

    /// Takes a word away.
    #[must_use]
    pub fn without(mut self, word: impl AsRef<str>) -> Self {
        let word = folded(word.as_ref());
        self.0.retain(|known| *known != word);
        self
    }

    /// The JSON with `"***"` in place of each value that is a secret, of whatever type. An empty text is left, which says that there is
    /// none. Works on schemas, too: what is below a property of such a name is hidden.
    ///
    /// # Errors
    /// `InvalidInput` if it is no JSON object or list. Nothing of it is repeated.
    pub fn hide(&self, json: &[u8]) -> Result<String> {
        const OP: &str = "cluster: hide secrets";
        let parsed: Option<Value> = serde_json::from_slice(json).ok();
        let mut value = parsed
            .filter(|value| value.is_object() || value.is_array())
            .ok_or_else(|| Error::invalid_input(OP, "it is no JSON object or list"))?;
        self.hide_in(&mut value, &mut String::new());
        Ok(value.to_string())
    }

    fn hide_in(&self, value: &mut Value, path: &mut String) {
        let length = path.len();
        match value {
            Value::Object(fields) => {
                for (name, field) in fields {
                    if length > 0 {
                        path.push('.');
                    }
                    path.push_str(&folded(name));
                    self.hide_in(field, path);
                    path.truncate(length);
                }
            }
            Value::Array(items) => {
                for item in items {
                    self.hide_in(item, path);
                }
            }
            Value::String(text) if text.is_empty() => {}
            leaf if self.0.iter().any(|word| path.contains(word)) => *leaf = HIDDEN.into(),
            Value::String(text) => *text = hide_logins(text),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}

/// As names are compared.
fn folded(name: &str) -> String {
    let lower = name.to_lowercase();
    lower.replace(['_', '-'], "")
}

/// A text without the user and the password of each URL in it. What only looks like a password is hidden, too: the text is read by people.
pub(crate) fn hide_logins(text: &str) -> String {
    let ends = |byte: char| byte.is_whitespace() || "\"'`".contains(byte);
    let mut hidden = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(found) = rest.find("://") {
        let (before, url) = rest.split_at(found + "://".len());
        let (url, after) = url.split_at(url.find(ends).unwrap_or(url.len()));
        hidden.push_str(before);
        match url.rfind('@') {
            Some(login) => {
                hidden.push_str(HIDDEN);
                hidden.push_str(&url[login..]);
            }
            None => hidden.push_str(url),
        }
        rest = after;
    }
    hidden.push_str(rest);
    hidden
}

/// The JSON with `"***"` in place of what may be secret, by the [default words](SecretWords::default).
///
/// # Errors
/// As [`SecretWords::hide`].
pub fn hide_secrets(json: &[u8]) -> Result<String> {
    SecretWords::default().hide(json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_below_such_a_name_is_hidden_and_nothing_else_changes() {
        for (json, hidden) in [
            ("{}", "{}"),
            ("[]", "[]"),
            (
                r#"{"secret":{"1":"x","n":5,"z":null,"e":"","arr":[1,"a"]},"list":[{"password":"p","x":1}],"Api.Token":"t","a":{},"b":[]}"#,
                r#"{"Api.Token":"***","a":{},"b":[],"list":[{"password":"***","x":1}],"secret":{"1":"***","arr":["***","***"],"e":"","n":"***","z":"***"}}"#,
            ),
            (
                r#"{"DB_PASSWORD":true,"myApiKey":"k","pwds":["a"],"pass":{"word":"w"}}"#,
                r#"{"DB_PASSWORD":"***","myApiKey":"***","pass":{"word":"w"},"pwds":["***"]}"#,
            ),
            (
                r#"{"api_key":"k","Api-Key":"k","access-key":1,"passwd":"p"}"#,
                r#"{"Api-Key":"***","access-key":"***","api_key":"***","passwd":"***"}"#,
            ),
            (
                r#"{"urls":["postgres://u:p@h/db?a=b@c","amqp://h x://u@h","a@b","http://h/x","://"],"more":"u://p:@@h"}"#,
                r#"{"more":"u://***@h","urls":["postgres://***@c","amqp://h x://***@h","a@b","http://h/x","://"]}"#,
            ),
            (
                r#"{"urls":["postgres://u:pa/ss@h","u://u:pa#s?s@h/db","'u://u:p@h' <u://u:p@h>"]}"#,
                r#"{"urls":["postgres://***@h","u://***@h/db","'u://***@h' <u://***@h>"]}"#,
            ),
            (
                r#"{"properties":{"password":{"type":"string","default":"p"}},"big":9007199254740993}"#,
                r#"{"big":9007199254740993,"properties":{"password":{"default":"***","type":"***"}}}"#,
            ),
        ] {
            assert_eq!(hide_secrets(json.as_bytes()).unwrap(), hidden);
        }
    }

    #[test]
    fn what_is_no_json_is_not_repeated() {
        for json in ["hunter2", r#""hunter2""#, r#"{"password":"hunter2""#, ""] {
            let error = hide_secrets(json.as_bytes()).unwrap_err();
            assert!(!error.report().to_string().contains("hunter2"));
        }
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(hide_secrets(deep.as_bytes()).is_err());
    }

    #[test]
    fn words_come_and_go_in_any_case() {
        let words = SecretWords::default()
            .with("IBAN")
            .with("")
            .without("Token");
        let hidden = words.hide(br#"{"Iban":"i","token":"t","x":"y"}"#).unwrap();
        assert_eq!(hidden, r#"{"Iban":"***","token":"t","x":"y"}"#);
    }
}
