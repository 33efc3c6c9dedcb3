//! Variables in configurations: `_Var(name)` in a text stands for a value, and a text that is `_ToInt(digits)` then for a number.
//!
//! isp-config-service replaces both wherever they stand, and escapes nothing, so that a quote in a value breaks the configuration. Here
//! they count within texts alone, the only place where JSON has room for them, and values are escaped.

use std::borrow::Cow;
use std::collections::BTreeSet;

const VARIABLE: &str = "_Var(";
const TO_INT: &str = "_ToInt(";
const END: char = ')';

/// The longest name of a variable, in bytes.
pub(crate) const MOST_NAME_BYTES: usize = 255;

/// Why a configuration cannot be sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unusable {
    /// These are not defined.
    Undefined(BTreeSet<String>),
    /// It would have more bytes than this.
    TooLarge(usize),
}

/// The variables that a configuration uses.
pub(crate) fn used(config: &str) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for part in Parts::of(config) {
        if let Part::Text { text, .. } = part {
            for part in in_text(text) {
                if let InText::Variable(name) = part {
                    used.insert(name.to_owned());
                }
            }
        }
    }
    used
}

/// The configuration as a module gets it, of at most `most` bytes. `config` is JSON.
pub(crate) fn render<'a, 'v>(
    config: &'a str,
    most: usize,
    value: impl Fn(&str) -> Option<&'v str>,
) -> Result<Cow<'a, str>, Unusable> {
    let mut undefined = BTreeSet::new();
    let mut rendered = String::with_capacity(config.len());
    for part in Parts::of(config) {
        match part {
            Part::Other(other) => rendered.push_str(other),
            Part::Text { text, is_key } => {
                let begin = rendered.len();
                rendered.push('"');
                for part in in_text(text) {
                    match part {
                        InText::Plain(plain) => rendered.push_str(plain),
                        InText::Variable(name) => match value(name) {
                            Some(value) => push_escaped(&mut rendered, value),
                            None => drop(undefined.insert(name.to_owned())),
                        },
                    }
                    if rendered.len() > most {
                        return Err(Unusable::TooLarge(most));
                    }
                }
                let number = rendered.get(begin + 1..).and_then(as_number);
                if let Some(number) = number.filter(|_| !is_key).map(str::to_owned) {
                    rendered.truncate(begin);
                    rendered.push_str(&number);
                } else {
                    rendered.push('"');
                }
            }
        }
    }
    if !undefined.is_empty() {
        return Err(Unusable::Undefined(undefined));
    }
    if rendered.len() > most {
        return Err(Unusable::TooLarge(most));
    }
    Ok(if rendered == config {
        Cow::Borrowed(config)
    } else {
        Cow::Owned(rendered)
    })
}

/// A number that JSON has: no zero leads it.
fn as_number(text: &str) -> Option<&str> {
    let digits = text.strip_prefix(TO_INT)?.strip_suffix(END)?;
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit())
        && (digits == "0" || !digits.starts_with('0'))
        && !digits.is_empty();
    is_number.then_some(digits)
}

fn push_escaped(rendered: &mut String, value: &str) {
    let quoted = serde_json::Value::from(value).to_string();
    let escaped = quoted
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    rendered.push_str(escaped.unwrap_or_default());
}

/// A part of a JSON document.
enum Part<'a> {
    /// Without its quotes, and with its escapes as they are.
    Text { text: &'a str, is_key: bool },
    /// Everything that is no text.
    Other(&'a str),
}

/// The parts of a JSON document, which together are all of it.
struct Parts<'a> {
    rest: &'a str,
}

impl<'a> Parts<'a> {
    fn of(document: &'a str) -> Self {
        Self { rest: document }
    }

    fn take(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at_checked(bytes).unwrap_or((self.rest, ""));
        self.rest = rest;
        taken
    }
}

impl<'a> Iterator for Parts<'a> {
    type Item = Part<'a>;

    fn next(&mut self) -> Option<Part<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let Some(within) = self.rest.strip_prefix('"') else {
            let end = self.rest.find('"').unwrap_or(self.rest.len());
            return Some(Part::Other(self.take(end)));
        };
        let mut is_escaped = false;
        let end = within.bytes().position(|byte| {
            let is_end = byte == b'"' && !is_escaped;
            is_escaped = byte == b'\\' && !is_escaped;
            is_end
        });
        let Some(end) = end else {
            return Some(Part::Other(self.take(self.rest.len())));
        };
        let text = self.take(end + 2).get(1..=end).unwrap_or_default();
        let is_key = self.rest.trim_ascii_start().starts_with(':');
        Some(Part::Text { text, is_key })
    }
}

enum InText<'a> {
    Plain(&'a str),
    Variable(&'a str),
}

/// The parts of a text. A variable's name ends at the first bracket.
fn in_text(text: &str) -> impl Iterator<Item = InText<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let begin = rest.find(VARIABLE);
        if begin == Some(0) {
            let after = rest.get(VARIABLE.len()..).unwrap_or_default();
            if let Some((name, after)) = after.split_once(END) {
                rest = after;
                return Some(InText::Variable(name));
            }
        }
        // One that has no end is none.
        let end = begin.filter(|begin| *begin > 0).unwrap_or(rest.len());
        let (plain, after) = rest.split_at_checked(end).unwrap_or((rest, ""));
        rest = after;
        Some(InText::Plain(plain))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value(name: &str) -> Option<&'static str> {
        match name {
            "varA" => Some("a"),
            "varB" => Some("123"),
            "zero" => Some("007"),
            "odd" => Some("say \"hi\"\n\\"),
            "" => Some("nameless"),
            _ => None,
        }
    }

    fn rendered(config: &str) -> String {
        render(config, 1000, value).unwrap().into_owned()
    }

    #[test]
    fn variables_are_replaced_and_numbers_made_as_isp_config_service_does() {
        for (config, expected) in [
            (r#"{"a":"_Var(varA)"}"#, r#"{"a":"a"}"#),
            (r#"{"b":"_ToInt(_Var(varB))"}"#, r#"{"b":123}"#),
            (r#"["x_Var(varA)y_Var(varB)z"]"#, r#"["xay123z"]"#),
            (r#"{"c":"{{ .Other }}"}"#, r#"{"c":"{{ .Other }}"}"#),
            (r#"["_ToInt(abc)"]"#, r#"["_ToInt(abc)"]"#),
            (r#"["_Var()"]"#, r#"["nameless"]"#),
            (r#"["_Var(varA"]"#, r#"["_Var(varA"]"#),
            (r#"["_Var(_Var(varA)"]"#, ""),
        ] {
            if expected.is_empty() {
                let undefined = BTreeSet::from(["_Var(varA".to_owned()]);
                let refused = render(config, 1000, value);
                assert_eq!(refused, Err(Unusable::Undefined(undefined)));
            } else {
                assert_eq!(rendered(config), expected, "{config}");
            }
        }
    }

    #[test]
    fn what_is_rendered_stays_json_whatever_the_values_are() {
        assert_eq!(rendered(r#"["_Var(odd)"]"#), r#"["say \"hi\"\n\\"]"#);
        // No number of JSON, and no value but a key.
        assert_eq!(rendered(r#"["_ToInt(_Var(zero))"]"#), r#"["_ToInt(007)"]"#);
        assert_eq!(
            rendered(r#"{"_ToInt(_Var(varB))" : 1}"#),
            r#"{"_ToInt(123)" : 1}"#
        );
        // A quote that is escaped begins no text.
        assert_eq!(
            rendered(r#"["a\"_ToInt(5)", "\\"]"#),
            r#"["a\"_ToInt(5)", "\\"]"#
        );
    }

    #[test]
    fn all_that_is_not_defined_is_named() {
        let config = r#"{"_Var(b)":["_Var(a)","_Var(varA)","_Var(b)"]}"#;
        let undefined = ["a", "b"].map(str::to_owned).into();
        assert_eq!(
            render(config, 1000, value),
            Err(Unusable::Undefined(undefined))
        );
        let names: Vec<String> = used(config).into_iter().collect();
        assert_eq!(names, ["a", "b", "varA"]);
    }

    #[test]
    fn values_cannot_make_it_larger_than_a_message_may_be() {
        let config = format!("[{}]", [r#""_Var(odd)""#; 10].join(","));
        // Each is 16 bytes with its quotes and escapes.
        let most = 10 * 16 + 9 + 2;
        let refused = render(&config, most - 1, value);
        assert_eq!(refused, Err(Unusable::TooLarge(most - 1)));
        assert_eq!(render(&config, most, value).unwrap().len(), most);
    }

    proptest! {
        #[test]
        fn any_json_without_variables_is_left_as_it_is(text in "\\PC*", number: i64) {
            let text = text.replace("_Var(", "").replace("_ToInt(", "");
            let config = serde_json::json!({ text.clone(): [text, number] }).to_string();
            prop_assert_eq!(render(&config, 100_000, value), Ok(Cow::Borrowed(&*config)));
        }

        #[test]
        fn any_value_keeps_the_configuration_json(text in "\\PC*", value in "\\PC*") {
            let config = serde_json::json!({ "a": format!("{text}_Var(x)") }).to_string();
            if let Ok(rendered) = render(&config, 100_000, |_| Some(value.as_str())) {
                prop_assert!(serde_json::from_str::<serde_json::Value>(&rendered).is_ok());
            }
        }

        #[test]
        fn any_text_is_rendered_or_refused(config in "\\PC*") {
            let _ = render(&config, 1000, value);
            let _ = used(&config);
        }
    }
}
