//! Checks of settings, with errors that name the key.

use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;
use std::{fmt, fs};

use sd_core::{Error, Result};

use crate::secret::Secret;
use crate::url::RegistryUrl;

/// The checks of one backend's settings. A broken rule is `InvalidInput` with the cause `key: rule`. The error repeats a value
/// only where it cannot hold a secret.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    op: &'static str,
}

impl Rules {
    /// The rules of a backend. Their errors have the operation `op`, for example `etcd: configuration`.
    pub const fn new(op: &'static str) -> Self {
        Self { op }
    }

    /// The error for a setting that breaks `rule`.
    pub fn broken(&self, key: &str, rule: impl fmt::Display) -> Error {
        Error::invalid_input(self.op, format!("{key}: {rule}"))
    }

    /// Parses a registry URL that must have one of these schemes.
    ///
    /// # Errors
    /// As [`RegistryUrl::parse`]. `InvalidInput` for another scheme.
    pub fn url(&self, text: &str, schemes: &[&str]) -> Result<RegistryUrl> {
        let url = RegistryUrl::parse(text)?;
        if schemes.contains(&url.scheme()) {
            return Ok(url);
        }
        let begin: Vec<_> = schemes
            .iter()
            .map(|scheme| format!("{scheme}://"))
            .collect();
        Err(self.broken(
            "url",
            format!(
                "must begin with {}, not {}://",
                begin.join(" or "),
                url.scheme()
            ),
        ))
    }

    /// Turns TLS on if the scheme of a URL asks for it.
    ///
    /// # Errors
    /// `InvalidInput` if the setting `tls` turns it off.
    pub fn tls_scheme(&self, asks_for_tls: bool, tls: &mut Option<bool>) -> Result<()> {
        if !asks_for_tls {
            return Ok(());
        }
        if tls.replace(true) == Some(false) {
            return Err(self.broken("tls", "is off, but the scheme of the URL asks for it"));
        }
        Ok(())
    }

    /// Refuses settings that a URL gives twice: in the part before the `?` that is their place, and again after it.
    /// `given_again` pairs each key with whether that is so.
    ///
    /// # Errors
    /// `InvalidInput` names the first such key.
    pub fn given_once(&self, given_again: &[(&str, bool)]) -> Result<()> {
        match given_again.iter().find(|(_, again)| *again) {
            Some((key, _)) => Err(self.broken(
                key,
                "is given twice: write it before the ? of the URL, not after it",
            )),
            None => Ok(()),
        }
    }

    /// Refuses a duration outside `range`. The bounds themselves are allowed.
    ///
    /// # Errors
    /// `InvalidInput` names the key and the bounds.
    pub fn range(
        &self,
        key: &str,
        value: Duration,
        range: &RangeInclusive<Duration>,
    ) -> Result<()> {
        if range.contains(&value) {
            return Ok(());
        }
        let (least, most) = (range.start(), range.end());
        Err(self.broken(
            key,
            format!("{value:?} is outside of {least:?} to {most:?}"),
        ))
    }

    /// Refuses a folder of elections that lies in that of services, or around it, or is the same.
    ///
    /// # Errors
    /// `InvalidInput` for `election_prefix` names both.
    pub fn apart(&self, prefix: &str, election_prefix: &str) -> Result<()> {
        let is_inside = |inner: &str, outer: &str| {
            let rest = inner.strip_prefix(outer);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        if is_inside(prefix, election_prefix) || is_inside(election_prefix, prefix) {
            return Err(self.broken(
                "election_prefix",
                format!(
                    "{election_prefix} and the prefix of services, {prefix}, must not lie one inside the other"
                ),
            ));
        }
        Ok(())
    }

    /// Reads the file that a setting names. Blocks.
    ///
    /// # Errors
    /// `InvalidInput` names the key and the file.
    pub fn read(&self, key: &str, path: &Path) -> Result<Vec<u8>> {
        fs::read(path)
            .map_err(|error| self.broken(key, format!("cannot read {}: {error}", path.display())))
    }

    /// Reads a secret from the file that a setting names, and drops the line ends at its end. Blocks.
    ///
    /// # Errors
    /// `InvalidInput` names the key, and the file if it cannot be read. The content is not repeated.
    pub fn read_secret(&self, key: &str, path: &Path) -> Result<Secret> {
        let text = String::from_utf8(self.read(key, path)?)
            .map_err(|_| self.broken(key, "the file must hold UTF-8 text"))?;
        Ok(Secret::new(text.trim_end_matches(['\r', '\n'])))
    }
}

#[cfg(test)]
mod tests {
    use sd_core::ErrorKind;

    use super::*;

    const RULES: Rules = Rules::new("newdb: configuration");

    fn refused<T: fmt::Debug>(result: Result<T>) -> String {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        error.report().to_string()
    }

    #[test]
    fn a_url_of_another_backend_is_refused() {
        let schemes = ["newdb", "newdb+https"];
        for scheme in schemes {
            let url = RULES.url(&format!("{scheme}://h"), &schemes).unwrap();
            assert_eq!(url.scheme(), scheme);
        }
        let report = refused(RULES.url("olddb://h", &schemes));
        assert!(
            report.contains("url: must begin with newdb:// or newdb+https://, not olddb://"),
            "{report}"
        );
    }

    #[test]
    fn folders_of_services_and_elections_lie_side_by_side() {
        for (prefix, election_prefix) in [
            ("/services", "/elections"),
            ("/services", "/services-elections"),
            ("/a/services", "/a/elections"),
        ] {
            RULES.apart(prefix, election_prefix).unwrap();
        }
        for (prefix, election_prefix) in [("/a", "/a"), ("/a", "/a/e"), ("/e/a", "/e")] {
            let report = refused(RULES.apart(prefix, election_prefix));
            assert!(report.contains("election_prefix: "), "{report}");
        }
    }

    #[test]
    fn a_scheme_turns_tls_on_unless_the_setting_turns_it_off() {
        for (asks, before, after) in [
            (false, None, None),
            (false, Some(false), Some(false)),
            (true, None, Some(true)),
            (true, Some(true), Some(true)),
        ] {
            let mut tls = before;
            RULES.tls_scheme(asks, &mut tls).unwrap();
            assert_eq!(tls, after);
        }
        let report = refused(RULES.tls_scheme(true, &mut Some(false)));
        assert!(report.contains("tls: is off"), "{report}");
    }

    #[test]
    fn a_key_that_was_given_again_is_refused_by_its_name() {
        assert!(RULES.given_once(&[("user", false)]).is_ok());
        let report = refused(RULES.given_once(&[("user", false), ("password", true)]));
        assert!(report.contains("password: is given twice"), "{report}");
    }

    #[test]
    fn a_duration_may_be_as_its_bounds_and_not_outside_of_them() {
        let [one, two, three] = [1, 2, 3].map(Duration::from_secs);
        assert!(RULES.range("wait", one, &(one..=two)).is_ok());
        assert!(RULES.range("wait", two, &(one..=two)).is_ok());
        let report = refused(RULES.range("wait", three, &(one..=two)));
        assert!(
            report.contains("wait: 3s is outside of 1s to 2s"),
            "{report}"
        );
        refused(RULES.range("wait", one, &(two..=three)));
    }

    #[test]
    fn a_secret_is_read_without_the_line_ends_at_its_end_and_never_repeated() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "\nses ame\r\n\n").unwrap();
        let secret = RULES.read_secret("password_file", file.path()).unwrap();
        assert_eq!(secret.expose(), "\nses ame");
        fs::write(file.path(), b"sesame\xff").unwrap();
        let report = refused(RULES.read_secret("password_file", file.path()));
        assert!(
            report.contains("password_file: the file must hold UTF-8")
                && !report.contains("sesame"),
            "{report}"
        );
        let report = refused(RULES.read("ca", Path::new("/does/not/exist")));
        assert!(
            report.contains("ca: cannot read /does/not/exist"),
            "{report}"
        );
    }
}
