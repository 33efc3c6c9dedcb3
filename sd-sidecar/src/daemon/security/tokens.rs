//! The tokens of callers, from a file.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use http::HeaderValue;
use sd_backend::Secret;
use sd_core::Printable;
use serde::Deserialize;

use super::{ANONYMOUS, Permission};
use crate::daemon::config::{ConfigError, file};

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

impl Tokens {
    /// Reads a file. Blocks.
    ///
    /// # Errors
    /// A file that cannot be read or that other users can, names and tokens that are missing, repeated or too short.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let wrong = |why: &str| {
            ConfigError::new(format!(
                "tokens: {}: {why}",
                Printable(&path.display().to_string())
            ))
        };
        let tokens: Self =
            file::parse(path).map_err(|error| ConfigError::new(format!("tokens: {error}")))?;
        if is_open_to_others(path) {
            return Err(wrong(
                "every user of this host can read it: set its mode to 0600 or 0640",
            ));
        }
        tokens.check().map_err(|why| wrong(&why))?;
        Ok(tokens)
    }

    #[cfg(test)]
    pub(super) fn parse_toml(text: &str) -> Result<Self, String> {
        let tokens: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        tokens.check()?;
        Ok(tokens)
    }

    fn check(&self) -> Result<(), String> {
        if self.token.is_empty() {
            return Err("it has no token, and so would let no caller in".to_owned());
        }
        let (mut names, mut secrets) = (BTreeSet::new(), BTreeSet::new());
        for token in &self.token {
            let name = &token.name;
            let is_name = (1..=64).contains(&name.len())
                && name
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-_.@".contains(&b));
            if !is_name || name == ANONYMOUS {
                return Err(
                    "a name has 1 to 64 letters, digits and -_.@, and is not anonymous".to_owned(),
                );
            }
            let secret = token.secret.expose();
            let is_sendable = secret.bytes().all(|b| b.is_ascii_graphic());
            if secret.len() < SHORTEST || !is_sendable {
                return Err(format!(
                    "the token of {name} needs at least {SHORTEST} characters, and printable ones of ASCII: write one that was made at random"
                ));
            }
            if !names.insert(name) || !secrets.insert(secret) {
                return Err(format!("name or token of {name} is there twice"));
            }
        }
        Ok(())
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
