//! What is read from files for each session: the password, the trusted issuers, our own certificate.
//!
//! Reading them each time is what lets an operator replace a password or a certificate under a running process.

use sd_backend::Secret;
use sd_core::Result;
use zookeeper_client as zk;

use crate::config::ZkConfig;
use crate::config::auth_scheme::AuthScheme;
use crate::config::rules::RULES;

/// How to prove who we are, and whom to trust, as of now.
pub(crate) struct Credentials {
    login: Option<Login>,
    /// `None` without TLS.
    tls: Option<zk::TlsOptions>,
}

struct Login {
    scheme: AuthScheme,
    user: String,
    password: Secret,
}

impl Credentials {
    /// Reads everything that `config` names. Blocks.
    ///
    /// # Errors
    /// `InvalidInput` names the key whose file cannot be read or understood.
    pub(crate) fn read(config: &ZkConfig) -> Result<Self> {
        Ok(Self {
            login: login(config)?,
            tls: tls(config)?,
        })
    }

    pub(crate) fn apply(self, connector: zk::Connector) -> zk::Connector {
        let connector = match &self.login {
            Some(login) => login.apply(connector),
            None => connector,
        };
        match self.tls {
            Some(tls) => connector.with_tls(tls),
            None => connector,
        }
    }
}

impl Login {
    fn apply(&self, connector: zk::Connector) -> zk::Connector {
        let (user, password) = (&self.user, self.password.expose());
        match self.scheme {
            AuthScheme::Digest => {
                connector.with_auth("digest", format!("{user}:{password}").as_bytes())
            }
            #[cfg(feature = "sasl")]
            AuthScheme::Sasl => {
                let options = zk::SaslOptions::digest_md5(user.clone(), password.to_owned());
                connector.with_sasl(options)
            }
            // A configuration with it is refused.
            #[cfg(not(feature = "sasl"))]
            AuthScheme::Sasl => connector,
        }
    }
}

fn login(config: &ZkConfig) -> Result<Option<Login>> {
    let Some(user) = &config.user else {
        return Ok(None);
    };
    let password = match &config.password_file {
        None => config.password.clone(),
        Some(path) => Some(RULES.read_secret("password_file", path)?),
    };
    Ok(password.map(|password| Login {
        scheme: config.auth_scheme,
        user: user.clone(),
        password,
    }))
}

fn tls(config: &ZkConfig) -> Result<Option<zk::TlsOptions>> {
    if !config.speaks_tls() {
        return Ok(None);
    }
    let mut options = zk::TlsOptions::new();
    if let Some(pem) = config.tls().read_ca(RULES)? {
        options = options
            .with_pem_ca(text("ca", &pem)?)
            .map_err(|error| RULES.broken("ca", error))?;
    }
    if let Some((cert, key)) = config.tls().read_identity(RULES)? {
        options = options
            .with_pem_identity(text("cert", &cert)?, text("key", &key)?)
            .map_err(|error| RULES.broken("cert and key", error))?;
    }
    Ok(Some(options))
}

fn text<'a>(key: &str, pem: &'a [u8]) -> Result<&'a str> {
    std::str::from_utf8(pem).map_err(|_| RULES.broken(key, "the file must hold UTF-8 text"))
}

#[cfg(test)]
mod tests {
    use sd_core::ErrorKind;

    use super::*;

    #[test]
    fn a_password_file_is_read_each_time_without_its_line_end() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let config = ZkConfig::new(["h:1"]).with_password_file("u", file.path());
        for password in ["first", "second"] {
            std::fs::write(file.path(), format!("{password}\n")).unwrap();
            let read = login(&config).unwrap().unwrap();
            assert_eq!(
                (read.user.as_str(), read.password.expose()),
                ("u", password)
            );
        }
        drop(file);
        let error = login(&config).err().unwrap().report().to_string();
        assert!(error.contains("password_file"), "{error}");
    }

    #[test]
    fn a_certificate_that_is_not_there_is_refused_by_its_key() {
        let config = ZkConfig::new(["h:1"]).with_ca("/does/not/exist");
        let error = Credentials::read(&config.checked().unwrap()).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let report = error.report().to_string();
        assert!(
            report.contains("ca: cannot read /does/not/exist"),
            "{report}"
        );
    }
}
