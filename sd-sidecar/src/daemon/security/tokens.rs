//! The tokens of callers, from a file.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use http::HeaderValue;
use sd_backend::Secret;
use serde::Deserialize;

use super::{ANONYMOUS, Permission};
use crate::daemon::config::ConfigError;
use crate::daemon::config::text::{Step, Text};

/// The tokens of callers.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tokens {
    #[serde(default)]
    token: Vec<Token>,
}

#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Token {
    /// The name that its holder's registrations and log lines have.
    name: String,
    #[serde(rename = "token")]
    secret: Secret,
    /// The services that its holder may register: names, or beginnings of names with `*`. By default all.
    services: Option<Arc<[String]>>,
    #[serde(default = "usual")]
    rights: Vec<Right>,
}

/// What a token is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Right {
    /// To read everything.
    Read,
    /// To register, and to change and withdraw what was registered with the same token.
    Register,
    /// To stop the agent.
    Admin,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Register => "register",
            Self::Admin => "admin",
        })
    }
}

fn usual() -> Vec<Right> {
    vec![Right::Read, Right::Register]
}

const SHORTEST: usize = 16;
/// So many names are told, and of more how many there are.
const MOST_TOLD: usize = 8;

/// What is wrong with a file of tokens.
struct Fault {
    /// The token, counted from 0, and its key.
    at: Option<(usize, &'static str)>,
    why: String,
}

fn few(names: &[String]) -> String {
    let shown = names.iter().take(MOST_TOLD).map(String::as_str);
    let shown = shown.collect::<Vec<_>>().join(" ");
    match names.len().saturating_sub(MOST_TOLD) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

impl Tokens {
    /// Reads a file. Blocks.
    ///
    /// # Errors
    /// A file that cannot be read or that other users can, names and tokens that are missing, repeated or too short.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let told = |error: ConfigError| ConfigError::new(format!("tokens: {error}"));
        let file = Text::read(path).map_err(told)?;
        let tokens: Self = file.parse().map_err(told)?;
        if is_open_to_others(path) {
            let why = "every user of this host can read it: set its mode to 0600 or 0640";
            return Err(told(file.wrong(&[], why)));
        }
        match tokens.fault() {
            None => Ok(tokens),
            Some(Fault { at: None, why }) => Err(told(file.wrong(&[], why))),
            Some(Fault {
                at: Some((token, key)),
                why,
            }) => {
                let steps = [Step::Key("token"), Step::Item(token), Step::Key(key)];
                Err(told(file.wrong(&steps, format_args!("{key}: {why}"))))
            }
        }
    }

    #[cfg(test)]
    pub(super) fn parse_toml(text: &str) -> Result<Self, String> {
        let tokens: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        match tokens.fault() {
            None => Ok(tokens),
            Some(fault) => Err(fault.why),
        }
    }

    /// The first thing that is wrong.
    fn fault(&self) -> Option<Fault> {
        if self.token.is_empty() {
            let why = "it has no token, and so would let no caller in".to_owned();
            return Some(Fault { at: None, why });
        }
        let (mut names, mut secrets) = (BTreeSet::new(), BTreeSet::new());
        for (place, token) in self.token.iter().enumerate() {
            let fault = |key, why: String| {
                let at = Some((place, key));
                Some(Fault { at, why })
            };
            let name = &token.name;
            let is_name = (1..=64).contains(&name.len())
                && name
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-_.@".contains(&b));
            if !is_name || name == ANONYMOUS {
                let why = "a name has 1 to 64 letters, digits and -_.@, and is not anonymous";
                return fault("name", why.to_owned());
            }
            let secret = token.secret.expose();
            let is_sendable = secret.bytes().all(|b| b.is_ascii_graphic());
            if secret.len() < SHORTEST || !is_sendable {
                let why = format!(
                    "that of {name} needs at least {SHORTEST} characters, and printable ones of ASCII: write one that was made at random"
                );
                return fault("token", why);
            }
            if !names.insert(name) {
                return fault("name", format!("{name} is there twice"));
            }
            if !secrets.insert(secret) {
                return fault("token", format!("that of {name} is there twice"));
            }
        }
        None
    }

    /// What differs in `newer`, by name. `None` if nothing does.
    pub(crate) fn difference(&self, newer: &Self) -> Option<String> {
        let by_name = |tokens: &Self| -> BTreeMap<String, Token> {
            let tokens = tokens.token.iter().cloned();
            tokens.map(|token| (token.name.clone(), token)).collect()
        };
        let (before, after) = (by_name(self), by_name(newer));
        let only_in = |one: &BTreeMap<String, Token>, other: &BTreeMap<String, Token>| {
            let names = one.keys().filter(|name| !other.contains_key(*name));
            names.cloned().collect::<Vec<_>>()
        };
        let differs = |(name, token): (&String, &Token)| {
            let is_other = before.get(name).is_some_and(|before| before != token);
            is_other.then(|| name.clone())
        };
        let parts = [
            ("added", only_in(&after, &before)),
            ("changed", after.iter().filter_map(differs).collect()),
            ("removed", only_in(&before, &after)),
        ];
        let told = parts.iter().filter(|(_, names)| !names.is_empty());
        let told: Vec<_> = told
            .map(|(what, names)| format!("{} {what}", few(names)))
            .collect();
        (!told.is_empty()).then(|| told.join(", "))
    }

    /// What the holder of a token may do.
    pub(super) fn permission(&self, authorization: &HeaderValue) -> Option<Permission> {
        let authorization = authorization.as_bytes();
        let (scheme, sent) = authorization.split_at_checked(7)?;
        if !scheme.eq_ignore_ascii_case(b"bearer ") {
            return None;
        }
        // All are compared, so that the time tells nothing of the place of a match.
        let mut found = None;
        for token in &self.token {
            if is_same(token.secret.expose().as_bytes(), sent.trim_ascii()) {
                found = Some(token);
            }
        }
        let token = found?;
        Some(Permission::new(
            &token.name,
            token.rights.clone(),
            token.services.clone(),
        ))
    }
}

/// Takes as long for any two texts of the same length.
fn is_same(ours: &[u8], sent: &[u8]) -> bool {
    let differences = ours
        .iter()
        .zip(sent)
        .fold(0, |all, (a, b)| std::hint::black_box(all | (a ^ b)));
    ours.len() == sent.len() && differences == 0
}

#[cfg(unix)]
fn is_open_to_others(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).is_ok_and(|file| file.mode() & 0o007 != 0)
}

#[cfg(not(unix))]
fn is_open_to_others(_: &Path) -> bool {
    false
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.token.iter().map(|token| &token.name);
        f.debug_list().entries(names).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_no_good_token_is_refused_without_being_repeated() {
        for (text, part) in [
            ("", "no token"),
            ("[[token]]\nname = 'a'\ntoken = 'sesame'", "at least 16"),
            (
                "[[token]]\nname = 'a'\ntoken = 'sesame sesame sesame'",
                "printable",
            ),
            (
                "[[token]]\nname = 'anonymous'\ntoken = 'sesame-sesame-sesame'",
                "not anonymous",
            ),
            (
                "[[token]]\nname = 'uid:0'\ntoken = 'sesame-sesame-sesame'",
                "letters",
            ),
            (
                "[[token]]\nname = 'a'\ntoken = 'sesame-sesame-sesame'\n[[token]]\nname = 'b'\ntoken = 'sesame-sesame-sesame'",
                "twice",
            ),
        ] {
            let why = Tokens::parse_toml(text).unwrap_err();
            assert!(why.contains(part) && !why.contains("sesame"), "{why}");
        }
    }

    #[test]
    fn a_file_that_every_user_can_read_is_refused() {
        let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
        fs::write(
            file.path(),
            "token:\n- name: a\n  token: sesame-sesame-sesame\n",
        )
        .unwrap();
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o644)).unwrap();
        let why = Tokens::read(file.path()).unwrap_err().to_string();
        assert!(why.contains("0600"), "{why}");
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o640)).unwrap();
        let tokens = Tokens::read(file.path()).unwrap();
        assert_eq!(format!("{tokens:?}"), r#"["a"]"#);
    }

    #[test]
    fn what_is_wrong_with_a_token_is_told_with_its_line_and_key() {
        for (extension, text, part) in [
            (
                ".toml",
                "[[token]]\nname = 'a'\ntoken = 'sesame-sesame-sesame'\n\n[[token]]\nname = 'b'\ntoken = 'sesame'",
                ".toml: line 7: token: that of b needs at least 16",
            ),
            (
                ".yaml",
                "token:\n- name: a\n  token: sesame-sesame-sesame\n- token: sesame-sesame-open\n  name: a\n",
                ".yaml: line 5: name: a is there twice",
            ),
            (
                ".yaml",
                "token:\n- name: a\n  token: sesame-sesame-sesame\n  rights: [sesame]\n",
                ".yaml: line 4: token[0].rights[0]: unknown variant",
            ),
            (
                ".toml",
                "[[token]]\nname = 'a'\ntoken = 77\n",
                ".toml: line 3: token[0].token: invalid type",
            ),
            (
                ".toml",
                "[[token]]\nname = 'a'\nsesame = 'b'\n",
                ".toml: line 3: token[0]: unknown field, expected",
            ),
        ] {
            let file = tempfile::Builder::new()
                .suffix(extension)
                .tempfile()
                .unwrap();
            fs::write(file.path(), text).unwrap();
            fs::set_permissions(file.path(), fs::Permissions::from_mode(0o600)).unwrap();
            let why = Tokens::read(file.path()).unwrap_err().to_string();
            assert!(why.contains(part) && !why.contains("sesame"), "{why}");
        }
    }

    #[test]
    fn a_difference_names_the_tokens_and_holds_no_secret() {
        let tokens = |names: &[(&str, &str)]| {
            let one = |(name, secret): &(&str, &str)| {
                format!("[[token]]\nname = '{name}'\ntoken = 'sesame-sesame-{secret}'\n")
            };
            let text: String = names.iter().map(one).collect();
            Tokens::parse_toml(&text).unwrap()
        };
        let before = tokens(&[("a", "one"), ("b", "two"), ("c", "three")]);
        assert_eq!(before.difference(&before), None);
        let after = tokens(&[("c", "three"), ("b", "other"), ("d", "four")]);
        let told = before.difference(&after).unwrap();
        assert_eq!(told, "d added, b changed, a removed");
        let names: Vec<_> = (10..30).map(|n| format!("t{n}")).collect();
        let many: Vec<_> = names
            .iter()
            .map(|name| (name.as_str(), name.as_str()))
            .collect();
        let told = before.difference(&tokens(&many)).unwrap();
        assert!(told.starts_with("t10 t11 "), "{told}");
        assert!(
            told.contains("t17 and 12 more added, a b c removed"),
            "{told}"
        );
    }

    #[test]
    fn a_part_of_a_token_is_none() {
        for (sent, same) in [
            ("abc", true),
            ("ab", false),
            ("abcd", false),
            ("", false),
            ("abd", false),
        ] {
            assert_eq!(is_same(b"abc", sent.as_bytes()), same, "{sent}");
        }
    }
}
