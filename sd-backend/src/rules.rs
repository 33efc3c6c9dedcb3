//! Checks of settings, and refusals that name the key.

use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;
use std::{fmt, fs};

use sd_core::{Error, Result};

use crate::secret::Secret;
use crate::url::RegistryUrl;

/// The checks of one backend's settings. What breaks one is `InvalidInput`, and its cause is `key: rule`. Values are repeated only
/// where they cannot hold a secret.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    op: &'static str,
}

impl Rules {
    /// The rules of a backend, whose errors have this operation, `etcd: configuration` for instance.
    pub const fn new(op: &'static str) -> Self {
        Self { op }
    }

    /// The refusal of a setting.
    pub fn broken(&self, key: &str, rule: impl fmt::Display) -> Error {
        Error::invalid_input(self.op, format!("{key}: {rule}"))
    }

    /// A registry URL that must have this scheme.
    ///
    /// # Errors
    /// As [`RegistryUrl::parse`], and for another scheme.
    pub fn url(&self, text: &str, scheme: &str) -> Result<RegistryUrl> {
        let url = RegistryUrl::parse(text)?;
        if url.scheme() != scheme {
            return Err(self.broken(
                "url",
                format!("begins with {scheme}://, not {}://", url.scheme()),
            ));
        }
        Ok(url)
    }

    /// Refuses the first key that is `true` here: it was set by the part of a URL that is its place, and again after the `?`.
    ///
    /// # Errors
    /// `InvalidInput` names the key.
    pub fn given_once(&self, given_again: &[(&str, bool)]) -> Result<()> {
        match given_again.iter().find(|(_, again)| *again) {
            Some((key, _)) => Err(self.broken(key, "stands before the ? of a URL, not after it")),
            None => Ok(()),
        }
    }

    /// Refuses a duration outside of its bounds, which are allowed themselves.
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

    /// The contents of the file that a setting names. Blocks.
    ///
    /// # Errors
    /// `InvalidInput` names the key and the file.
    pub fn read(&self, key: &str, path: &Path) -> Result<Vec<u8>> {
        fs::read(path)
            .map_err(|error| self.broken(key, format!("cannot read {}: {error}", path.display())))
    }

    /// The secret in the file that a setting names, without the line ends at its end. Blocks.
    ///
    /// # Errors
    /// `InvalidInput` names the key, and the file if it cannot be read. What is in it is not repeated.
    pub fn read_secret(&self, key: &str, path: &Path) -> Result<Secret> {
        let text = String::from_utf8(self.read(key, path)?)
            .map_err(|_| self.broken(key, "must hold UTF-8 text"))?;
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
        assert!(RULES.url("newdb://h", "newdb").is_ok());
        let report = refused(RULES.url("olddb://h", "newdb"));
        assert!(
            report.contains("url: begins with newdb://, not olddb://"),
            "{report}"
        );
    }

    #[test]
    fn a_key_that_was_given_again_is_refused_by_its_name() {
        assert!(RULES.given_once(&[("user", false)]).is_ok());
        let report = refused(RULES.given_once(&[("user", false), ("password", true)]));
        assert!(report.contains("password: stands before the ?"), "{report}");
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
            report.contains("password_file: must hold UTF-8") && !report.contains("sesame"),
            "{report}"
        );
        let report = refused(RULES.read("ca", Path::new("/does/not/exist")));
        assert!(
            report.contains("ca: cannot read /does/not/exist"),
            "{report}"
        );
    }
}
