//! What is read from files and the environment each time a connection is made: the token, the trusted issuers, our own certificate.
//!
//! Because they are read again, an operator can replace a token or a certificate under a running process.

use reqwest::{Certificate, ClientBuilder, Identity};
use sd_backend::Secret;
use sd_core::Result;

use crate::config::ConsulConfig;
use crate::config::rules::{RULES, check_token};

/// How to prove who we are, and whom to trust, as of now.
#[derive(Debug)]
pub(crate) struct Credentials {
    pub(crate) token: Option<Secret>,
    tls: Tls,
}

#[derive(Debug, Default)]
struct Tls {
    /// `None` for those whom the operating system trusts.
    issuers: Option<Vec<Certificate>>,
    identity: Option<Identity>,
}

impl Credentials {
    /// Reads everything that `config` names.
    ///
    /// # Errors
    /// `InvalidInput` names the key whose file cannot be read or understood.
    pub(crate) fn read(config: &ConsulConfig) -> Result<Self> {
        Ok(Self {
            token: token(config)?,
            tls: tls(config)?,
        })
    }

    /// A client that trusts and shows what was read.
    pub(crate) fn apply(&self, builder: ClientBuilder) -> ClientBuilder {
        let builder = match &self.tls.issuers {
            // Consul's certificates mostly come from an authority of its own: then no other may vouch for it.
            Some(issuers) => builder.tls_certs_only(issuers.iter().cloned()),
            None => builder,
        };
        match &self.tls.identity {
            Some(identity) => builder.identity(identity.clone()),
            None => builder,
        }
    }
}

/// The token as of now.
///
/// # Errors
/// `InvalidInput` names the key whose file or variable cannot be read, or holds no token.
pub(crate) fn token(config: &ConsulConfig) -> Result<Option<Secret>> {
    let (key, token) = if let Some(path) = &config.token_file {
        ("token_file", RULES.read_secret("token_file", path)?)
    } else if let Some(variable) = &config.token_env {
        let text = std::env::var(variable).map_err(|_| {
            RULES.broken("token_env", format!("{variable} is not set to UTF-8 text"))
        })?;
        (
            "token_env",
            Secret::new(text.trim_end_matches(['\r', '\n'])),
        )
    } else {
        return Ok(config.token.clone());
    };
    check_token(key, token.expose())?;
    Ok(Some(token))
}

fn tls(config: &ConsulConfig) -> Result<Tls> {
    if !config.endpoints.speak_tls() {
        return Ok(Tls::default());
    }
    let issuers = match config.tls().read_ca(RULES)? {
        Some(pem) => {
            let issuers =
                Certificate::from_pem_bundle(&pem).map_err(|error| RULES.broken("ca", error))?;
            if issuers.is_empty() {
                return Err(RULES.broken("ca", "contains no certificate in PEM format"));
            }
            Some(issuers)
        }
        None => None,
    };
    let identity = match config.tls().read_identity(RULES)? {
        Some((mut pem, key)) => {
            pem.push(b'\n');
            pem.extend(key);
            let identity = Identity::from_pem(&pem).map_err(|_| {
                RULES.broken(
                    "cert and key",
                    "are not a certificate and a key in PEM format",
                )
            })?;
            Some(identity)
        }
        None => None,
    };
    Ok(Tls { issuers, identity })
}

#[cfg(test)]
mod tests {
    use sd_core::ErrorKind;

    use super::*;

    #[test]
    fn a_token_file_is_read_each_time_without_its_line_end() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let config = ConsulConfig::default().with_token_file(file.path());
        for expected in ["first", "second"] {
            std::fs::write(file.path(), format!("{expected}\n")).unwrap();
            let read = token(&config).unwrap().unwrap();
            assert_eq!(read.expose(), expected);
        }
        std::fs::write(file.path(), "no token").unwrap();
        let error = token(&config).unwrap_err().report().to_string();
        assert!(
            error.contains("token_file") && !error.contains("no token"),
            "{error}"
        );
        drop(file);
        let error = token(&config).unwrap_err().report().to_string();
        assert!(error.contains("token_file"), "{error}");
    }

    #[test]
    fn the_environment_is_looked_at_only_when_that_is_asked_for() {
        // Set by cargo for every test.
        let asked = ConsulConfig::default().with_token_env("CARGO_PKG_NAME");
        assert_eq!(token(&asked).unwrap(), Some(Secret::new("sd-consul")));
        assert_eq!(token(&ConsulConfig::default()).unwrap(), None);
        let unset = ConsulConfig::default().with_token_env("SD_TEST_NOT_SET");
        let error = token(&unset).unwrap_err().report().to_string();
        assert!(error.contains("SD_TEST_NOT_SET"), "{error}");
    }

    #[test]
    fn a_certificate_that_is_not_there_or_is_none_is_refused_by_its_key() {
        let checked = |config: ConsulConfig| Credentials::read(&config.checked().unwrap());
        let error = checked(ConsulConfig::default().with_ca("/does/not/exist")).unwrap_err();
        // The default endpoint has no scheme, so it speaks TLS now.
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let report = error.report().to_string();
        assert!(
            report.contains("ca: cannot read /does/not/exist"),
            "{report}"
        );
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "no certificate").unwrap();
        for (config, key) in [
            (ConsulConfig::default().with_ca(file.path()), "ca"),
            (
                ConsulConfig::default().with_identity(file.path(), file.path()),
                "cert",
            ),
        ] {
            let report = checked(config).unwrap_err().report().to_string();
            assert!(report.contains(key), "{report}");
        }
    }
}
