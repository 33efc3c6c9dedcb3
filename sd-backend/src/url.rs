//! Registry URLs: `backend://user:password@host:port,host:port/path?key=value`, with the same keys as the backend's
//! configuration.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use percent_encoding::percent_decode_str;
use sd_core::{Error, Result};
use serde::de::DeserializeOwned;

use crate::without_input::without_input;

const OP: &str = "registry url";
const MAX_URL_BYTES: usize = 8 * 1024;
/// How many letters may be wrong in a key that is taken for a misspelt one.
const MOST_WRONG: usize = 2;

/// A parsed registry URL. `Display` and `Debug` hide the password and everything after `?`. They also hide a user name without
/// a password, which may be a token.
#[derive(Clone, PartialEq, Eq)]
pub struct RegistryUrl {
    scheme: String,
    username: Option<String>,
    password: Option<String>,
    hosts: Vec<String>,
    path: String,
    query: String,
}

impl RegistryUrl {
    /// Parses a URL of at most 8 KiB. A backend may have several schemes, such as `newdb` and `newdb+https`. Hosts are separated
    /// by commas and may lack a port. An IPv6 address needs brackets. User name, password and path may be percent-encoded. `/`,
    /// `?` and `#` in a user name or password must be, and so must `@` after the hosts. An empty user name or password is none.
    ///
    /// Where the host was forgotten, as in `newdb://alice:12345`, a password that is a number up to 65535 cannot be told from a port, and
    /// is read as one. It is an error after `root`, `admin`, `administrator`, `user` and `username`. A host of such a name with a port
    /// needs a dot at its end, as in `newdb://root.:12345`.
    ///
    /// # Errors
    /// `InvalidInput` says what is wrong, and repeats nothing of the text but a scheme: any other part may hold a secret that was put
    /// in the wrong place.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |message: String| Error::invalid_input(OP, message);
        if text.len() > MAX_URL_BYTES {
            return Err(wrong(format!("is longer than {MAX_URL_BYTES} bytes")));
        }
        if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(wrong(
                "contains white space or control characters: remove or percent-encode them".into(),
            ));
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(wrong(
                "has no scheme: write backend://host:port/path, for instance etcd://127.0.0.1:2379"
                    .into(),
            ));
        };
        let first_is_letter = scheme.starts_with(|c: char| c.is_ascii_lowercase());
        if !first_is_letter
            || !scheme
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'+'))
        {
            return Err(wrong(
                "what stands before :// is no backend name: use lower-case letters, digits, '-' and '+'"
                    .into(),
            ));
        }
        if rest.contains('#') {
            return Err(wrong(
                "has a fragment (#...), which means nothing here: write %23 for the character"
                    .into(),
            ));
        }
        let (authority, after) = rest
            .find(['/', '?'])
            .map_or((rest, ""), |end| rest.split_at(end));
        // A password that is cut at its `/` or `?` would show up in what is taken for hosts and path.
        if !authority.is_empty() && after.contains('@') {
            return Err(wrong(
                "has an '@' after a '/' or '?': percent-encode '/', '?' and '@' in user name and password, and '@' elsewhere"
                    .into(),
            ));
        }
        let (path, query) = after.split_once('?').unwrap_or((after, ""));
        let (user, hosts) = match authority.rsplit_once('@') {
            Some((user, hosts)) => (Some(user), hosts),
            None => (None, authority),
        };
        let (username, password) =
            user.map_or(("", ""), |user| user.split_once(':').unwrap_or((user, "")));
        let given = |text: &str| (!text.is_empty()).then(|| decode(text)).transpose();
        let (username, password) = (given(username)?, given(password)?);
        let hosts: Vec<_> = hosts
            .split(',')
            .filter(|_| !hosts.is_empty())
            .map(str::to_owned)
            .collect();
        if user.is_none() && hosts.iter().any(|host| is_user(host)) {
            return Err(wrong(
                "has a user name where a host is expected: write user:password@host:port, or, for a host that has such a name, host.:port \
                 with a dot at its end"
                    .into(),
            ));
        }
        if let Some(at) = hosts.iter().position(|host| !is_host(host)) {
            return Err(wrong(format!(
                "number {} of the hosts is no host: write host, host:port or [ipv6]:port, and user name and password before an '@'",
                at + 1
            )));
        }
        Ok(Self {
            scheme: scheme.to_owned(),
            username,
            password,
            hosts,
            path: decode(path)?,
            query: query.to_owned(),
        })
    }

    /// The scheme, for example `etcd` or `consul+https`.
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// The user name, decoded. `None` if it is empty.
    pub fn username(&self) -> Option<&str> {
        self.username.as_deref()
    }

    /// The password, decoded. `None` if it is empty. It may stand alone, as in `newdb://:password@host`.
    pub fn password(&self) -> Option<&str> {
        self.password.as_deref()
    }

    /// The hosts as written, each with or without a port.
    pub fn hosts(&self) -> &[String] {
        &self.hosts
    }

    /// The decoded path with its leading slash. Empty if there is none.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Reads the keys after `?` into a struct. Use `#[serde(deny_unknown_fields)]`, and `humantime_serde` for durations.
    ///
    /// # Errors
    /// `InvalidInput` names the key whose value cannot be read, without the value. An unknown key is named only if it is a known one
    /// misspelt: it may be what follows an `&` in a password.
    pub fn settings<T: DeserializeOwned>(&self) -> Result<T> {
        let keys = serde_html_form::Deserializer::from_bytes(self.query.as_bytes());
        serde_path_to_error::deserialize(keys).map_err(|error| {
            let key = error.path().to_string();
            let why = error.into_inner().to_string();
            let rule = if why.starts_with("unknown field") {
                self.unknown_key(&why)
            } else if key == "." {
                without_input(&why)
            } else {
                format!("{key}: {}", without_input(&why))
            };
            Error::invalid_input(OP, rule)
        })
    }

    /// What is wrong with a key that serde found to be unknown.
    fn unknown_key(&self, why: &str) -> String {
        let expected = why
            .rsplit_once(", expected ")
            .map_or("", |(_, names)| names);
        let known: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
        if known.is_empty() {
            return "no settings belong here: remove everything from the ? on".to_owned();
        }
        let keys = self.query.split('&').map(|pair| {
            let key = pair.split('=').next().unwrap_or_default();
            percent_decode_str(key).decode_utf8_lossy()
        });
        let unknown = keys
            .enumerate()
            .find(|(_, key)| !known.contains(&key.as_ref()));
        let (at, key) = unknown.unwrap_or_default();
        let nearest = known
            .iter()
            .map(|name| (strsim::damerau_levenshtein(name, &key), name))
            .min();
        match nearest {
            // Of a short name, hardly anything would be left.
            Some((wrong, name)) if wrong <= MOST_WRONG && wrong < name.len() => {
                format!("{key}: there is no such setting: write {name}")
            }
            _ => format!(
                "number {} of the settings after the ? is unknown: use {}, and write %26 for an & within a value",
                at + 1,
                known.join(", ")
            ),
        }
    }

    /// Refuses all keys, for backends that have none.
    ///
    /// # Errors
    /// `InvalidInput` if there is a key.
    pub fn without_settings(&self) -> Result<()> {
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Nothing {}
        self.settings::<Nothing>().map(|Nothing {}| ())
    }
}

fn decode(text: &str) -> Result<String> {
    percent_decode_str(text)
        .decode_utf8()
        .map(Cow::into_owned)
        .ok()
        .filter(|text| !text.contains('\0'))
        .ok_or_else(|| {
            Error::invalid_input(
                OP,
                "user name, password and path must be UTF-8 after percent-decoding",
            )
        })
}

fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let port_is_good = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port != 0));
    let host_is_good = match host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        Some(ipv6) => ipv6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && is_plain(host),
    };
    host_is_good && port_is_good
}

/// What people call users, and hosts that keep a registry hardly ever.
const USERS: [&str; 5] = ["admin", "administrator", "root", "user", "username"];

/// Whether this is rather a user name with a password of digits than a host with its port. By the digits alone they cannot be told apart.
fn is_user(text: &str) -> bool {
    text.split_once(':')
        .is_some_and(|(name, _)| USERS.iter().any(|user| name.eq_ignore_ascii_case(user)))
}

fn is_plain(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

impl FromStr for RegistryUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

impl fmt::Display for RegistryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme)?;
        match (&self.username, &self.password) {
            (Some(username), Some(_)) if is_plain(username) => write!(f, "{username}:***@")?,
            // What is no plain name may hold a part of a password.
            (Some(_), Some(_)) => f.write_str("***:***@")?,
            // Alone before the hosts it may be a token.
            (Some(_), None) => f.write_str("***@")?,
            (None, Some(_)) => f.write_str(":***@")?,
            (None, None) => {}
        }
        write!(f, "{}{}", self.hosts.join(","), self.path)
    }
}

impl fmt::Debug for RegistryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Settings {
        #[serde(default, with = "humantime_serde")]
        ttl: Option<Duration>,
        #[serde(default)]
        tls: bool,
    }

    #[test]
    fn reads_every_part() {
        let url = RegistryUrl::parse(
            "etcd://us%40er:p%2Fw@h1:2379,[::1]:2379,h3/services/a?ttl=10s&tls=true",
        )
        .unwrap();
        assert_eq!(
            (url.scheme(), url.username(), url.password()),
            ("etcd", Some("us@er"), Some("p/w"))
        );
        assert_eq!(url.hosts(), ["h1:2379", "[::1]:2379", "h3"]);
        assert_eq!(url.path(), "/services/a");
        let settings: Settings = url.settings().unwrap();
        assert_eq!(
            (settings.ttl, settings.tls),
            (Some(Duration::from_secs(10)), true)
        );
    }

    #[test]
    fn an_empty_user_name_or_password_is_none() {
        for (text, username, password) in [
            ("etcd://@h", None, None),
            ("etcd://:@h", None, None),
            ("etcd://u:@h", Some("u"), None),
            ("etcd://:sesame@h", None, Some("sesame")),
        ] {
            let url = RegistryUrl::parse(text).unwrap();
            assert_eq!((url.username(), url.password()), (username, password));
            assert!(!url.to_string().contains("sesame"), "{url}");
        }
    }

    #[test]
    fn a_scheme_may_say_more_than_the_backend() {
        let url = RegistryUrl::parse("consul+https://h").unwrap();
        assert_eq!(url.scheme(), "consul+https");
        for scheme in ["+consul", "consul_https", "consul.https", ""] {
            let error = RegistryUrl::parse(&format!("{scheme}://h")).unwrap_err();
            assert!(
                error.report().to_string().contains("lower-case"),
                "{scheme}"
            );
        }
    }

    #[test]
    fn a_url_without_host_is_for_files() {
        let url = RegistryUrl::parse("file:///etc/services@home.json").unwrap();
        assert!(url.hosts().is_empty());
        assert_eq!(url.path(), "/etc/services@home.json");
        url.without_settings().unwrap();
    }

    #[test]
    fn an_unknown_key_and_a_bad_value_are_named() {
        for (query, hint) in [
            ("tttl=1s", "tttl: there is no such setting: write ttl"),
            ("tls=true&none=1s", "number 2 of the settings"),
            ("tls=maybe", "tls: invalid value: string, expected \"true\""),
            (
                "ttl=fast",
                "ttl: invalid value: string, expected a duration",
            ),
            ("ttl=1s&ttl=2s", "ttl"),
        ] {
            let url = RegistryUrl::parse(&format!("etcd://h/?{query}")).unwrap();
            let error = url.settings::<Settings>().unwrap_err().report().to_string();
            assert!(error.contains(hint), "{query}: {error}");
            let error = url.without_settings().unwrap_err().report().to_string();
            assert!(error.contains("no settings belong here"), "{error}");
        }
    }

    #[test]
    fn bad_urls_say_what_to_write_and_never_repeat_the_password() {
        for (text, hint) in [
            ("127.0.0.1:2379", "backend://"),
            ("Etcd://h", "lower-case"),
            ("etcd://h:0", "no host"),
            ("etcd://user:12345", "user name where a host"),
            ("etcd://root:sesame", "user name where a host"),
            ("etcd://Admin:2379/services", "user name where a host"),
            ("etcd://h:2379,root:12345", "user name where a host"),
            ("etcd://alice:123456", "no host"),
            ("etcd://h,,g", "no host"),
            ("etcd://u:sesame@h:x", "no host"),
            ("etcd://h#x", "fragment"),
            ("etcd://root:ses/ame@h:2379/p", "percent-encode"),
            ("etcd://root:ses?ame@h:2379/p", "percent-encode"),
            ("etcd://root:1234/sesame@h/p", "percent-encode"),
            ("etcd://root:1@2/sesame@h/p", "percent-encode"),
            ("etcd://h/ x", "white space"),
            ("etcd://%ff:sesame@h", "UTF-8"),
        ] {
            let error = RegistryUrl::parse(text).unwrap_err().report().to_string();
            assert!(
                error.contains(hint) && !error.contains("ses") && !error.contains("123"),
                "{text}: {error}"
            );
        }
        for text in [
            "etcd://host:12345",
            "etcd://alice:12345",
            "etcd://root.:12345",
            "etcd://root",
            "etcd://u:p@root:12345",
            "etcd://user.example:2379",
        ] {
            assert!(RegistryUrl::parse(text).is_ok(), "{text}");
        }
        let url = RegistryUrl::parse("etcd://u:sesame@h/p?password=sesame").unwrap();
        assert_eq!(
            format!("{url} {url:?}"),
            "etcd://u:***@h/p etcd://u:***@h/p"
        );
        let token = RegistryUrl::parse("consul://sesame@h").unwrap();
        assert_eq!(format!("{token}"), "consul://***@h");
    }

    /// URLs with a secret, marked `S`, where people put one by mistake.
    const MISTAKES: [&str; 36] = [
        "S",
        "S@h",
        "u:S@h:1",
        "u:S://h",
        "u:S://x@h",
        "//u:S@h",
        "etcd:/u:S@h",
        "etcd:u:S@h",
        "etcd://u:S",
        "etcd://u:S,g",
        "etcd://h,u:S",
        "etcd://u:S/p",
        "etcd://u:S?ttl=1s",
        "etcd://u:S@",
        "etcd://u:S@h:x",
        "etcd://u:S@@h",
        "etcd://u:p@S@h",
        "etcd://u@S:p@h",
        "etcd://u:a:S@h",
        "etcd://u:a/S@h",
        "etcd://u:a?S@h",
        "etcd://u:a#S@h",
        "etcd://u:a&S@h?tttl=1s",
        "etcd://u:S%zz@h",
        "etcd://u:S%ff@h",
        "etcd://S@h?nothing=1",
        "etcd://:S@h?ttl=fast",
        "etcd://h/?password=S",
        "etcd://h/?ttl=S",
        "etcd://h/?tls=S",
        "etcd://h/?tls=true&S",
        "etcd://h/?ttl=a&S",
        "etcd://h/?ttl=1s&S=1",
        "etcd://h/?ttl=http://u:S@h",
        "etcd://h/?x=http://S",
        "etcd://h/#S",
    ];

    proptest! {
        #[test]
        fn no_error_and_no_form_of_a_url_repeats_a_secret(secret in "[a-zA-Z][a-zA-Z0-9+=._~-]{8,24}", at in 0..MISTAKES.len()) {
            let text = MISTAKES[at].replace('S', &secret);
            let mut shown = Vec::new();
            let form = |error: Error| format!("{error} {error:?} {}", error.report());
            match RegistryUrl::parse(&text) {
                Err(error) => shown.push(form(error)),
                Ok(url) => {
                    shown.push(format!("{url} {url:?}"));
                    shown.extend(url.settings::<Settings>().err().map(form));
                    shown.extend(url.without_settings().err().map(form));
                }
            }
            let shown = shown.join("\n");
            prop_assert!(!shown.contains(&secret), "{text}: {shown}");
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,60}") {
            let _ = RegistryUrl::parse(&text);
            let _ = RegistryUrl::parse(&format!("etcd://{text}")).map(|url| url.settings::<Settings>());
        }
    }
}
