//! The settings of a login with a user and a password.

use std::path::Path;

use sd_core::Result;

use crate::rules::Rules;
use crate::secret::Secret;

/// The login settings that every backend with users has, under the same keys. Build it with `..LoginSettings::default()`: more may come.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoginSettings<'a> {
    /// `user`.
    pub user: Option<&'a str>,
    /// `password`.
    pub password: Option<&'a Secret>,
    /// `password_file`: a file that holds the password, read for each login.
    pub password_file: Option<&'a Path>,
}

impl LoginSettings<'_> {
    /// Refuses a user without a password, a password without a user, and two passwords.
    ///
    /// # Errors
    /// `InvalidInput` for `user` or `password`.
    pub fn check(&self, rules: Rules) -> Result<()> {
        let passwords = (self.password.is_some(), self.password_file.is_some());
        match (self.user, passwords) {
            (None, (false, false)) | (Some(_), (true, false) | (false, true)) => Ok(()),
            (None, _) => Err(rules.broken("user", "a password needs a user: set one")),
            (Some(_), (false, false)) => Err(rules.broken(
                "password",
                "a user needs a password: set password or password_file",
            )),
            (Some(_), (true, true)) => {
                Err(rules.broken("password", "set either password or password_file, not both"))
            }
        }
    }

    /// User and password, as they are now. `None` without a login. Blocks.
    ///
    /// # Errors
    /// `InvalidInput` names the file that cannot be read. Its content is not repeated.
    pub fn read(&self, rules: Rules) -> Result<Option<(String, Secret)>> {
        let password = match self.password_file {
            Some(path) if self.user.is_some() => Some(rules.read_secret("password_file", path)?),
            _ => self.password.cloned(),
        };
        Ok(self.user.map(str::to_owned).zip(password))
    }
}

/// The setters `with_user` and `with_password_file`, and the method `login`, which describes the settings as a
/// [`LoginSettings`](crate::LoginSettings). For the `impl` of a configuration with these fields:
///
/// ```
/// # use std::path::PathBuf;
/// # use sd_backend::Secret;
/// #[derive(Clone, Debug, Default, serde::Deserialize)]
/// #[serde(default, deny_unknown_fields)]
/// pub struct NewDbConfig {
///     user: Option<String>,
///     password: Option<Secret>,
///     password_file: Option<PathBuf>,
/// }
///
/// impl NewDbConfig {
///     sd_backend::login_setters!();
/// }
///
/// let config = NewDbConfig::default().with_user("u", "sesame").with_password_file("v", "/password");
/// assert_eq!((config.login().user, config.login().password), (Some("v"), None));
/// ```
#[macro_export]
macro_rules! login_setters {
    () => {
        /// Logs in with a password that does not change while the process runs.
        #[must_use]
        pub fn with_user(
            mut self,
            user: impl ::std::convert::Into<::std::string::String>,
            password: impl ::std::convert::Into<::std::string::String>,
        ) -> Self {
            self.user = ::std::option::Option::Some(user.into());
            self.password = ::std::option::Option::Some($crate::Secret::new(password));
            self.password_file = ::std::option::Option::None;
            self
        }

        /// Logs in with the password in a file. The file is read for each login, so a changed password needs no restart. Line ends at the
        /// end of the file are dropped.
        #[must_use]
        pub fn with_password_file(
            mut self,
            user: impl ::std::convert::Into<::std::string::String>,
            password_file: impl ::std::convert::Into<::std::path::PathBuf>,
        ) -> Self {
            self.user = ::std::option::Option::Some(user.into());
            self.password = ::std::option::Option::None;
            self.password_file = ::std::option::Option::Some(password_file.into());
            self
        }

        /// The settings of the login.
        pub(crate) fn login(&self) -> $crate::LoginSettings<'_> {
            $crate::LoginSettings {
                user: self.user.as_deref(),
                password: self.password.as_ref(),
                password_file: self.password_file.as_deref(),
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use sd_core::ErrorKind;

    use super::*;

    const RULES: Rules = Rules::new("newdb: configuration");

    #[test]
    fn a_login_is_a_user_with_one_password() {
        let (secret, file) = (Secret::new("sesame"), Path::new("/password"));
        for (user, password, password_file, broken) in [
            (None, None, None, None),
            (Some("u"), Some(&secret), None, None),
            (Some("u"), None, Some(file), None),
            (None, Some(&secret), None, Some("user: ")),
            (None, None, Some(file), Some("user: ")),
            (Some("u"), None, None, Some("password: a user needs")),
            (
                Some("u"),
                Some(&secret),
                Some(file),
                Some("password: set either"),
            ),
        ] {
            let login = LoginSettings {
                user,
                password,
                password_file,
            };
            let checked = login.check(RULES);
            let Some(why) = broken else {
                checked.unwrap();
                continue;
            };
            let error = checked.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            let report = error.report().to_string();
            assert!(
                report.contains(why) && !report.contains("sesame"),
                "{report}"
            );
        }
    }

    #[test]
    fn a_password_is_read_from_its_file_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        let login = LoginSettings {
            user: Some("u"),
            password_file: Some(&file),
            ..LoginSettings::default()
        };
        let error = login.read(RULES).unwrap_err().report().to_string();
        assert!(error.contains("password_file: "), "{error}");
        for password in ["one", "two"] {
            std::fs::write(&file, format!("{password}\n")).unwrap();
            let read = login.read(RULES).unwrap();
            assert_eq!(read, Some(("u".to_owned(), Secret::new(password))));
        }
        assert_eq!(LoginSettings::default().read(RULES).unwrap(), None);
    }
}
