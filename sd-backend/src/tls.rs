//! The settings of TLS.

use std::path::Path;

use sd_core::Result;

use crate::rules::Rules;

/// The TLS settings that every backend has, under the same keys. Build it with `..TlsSettings::default()`: more may come.
#[derive(Clone, Copy, Debug, Default)]
pub struct TlsSettings<'a> {
    /// `tls`: whether servers that are written without a scheme use TLS.
    pub tls: Option<bool>,
    /// `ca`: a PEM file with the trusted issuers. By default those of the operating system.
    pub ca: Option<&'a Path>,
    /// `cert`: a PEM file with the client's certificate (chain).
    pub cert: Option<&'a Path>,
    /// `key`: a PEM file with that certificate's key.
    pub key: Option<&'a Path>,
    /// `server_name`: the name that the servers' certificates must be for.
    pub server_name: Option<&'a str>,
}

impl TlsSettings<'_> {
    /// Whether the settings ask for TLS: the value of `tls`, or true if that is not set and any other setting is. Otherwise
    /// `None`.
    pub fn wanted(&self) -> Option<bool> {
        let implied = self.ca.is_some()
            || self.cert.is_some()
            || self.key.is_some()
            || self.server_name.is_some();
        self.tls.or(implied.then_some(true))
    }

    /// Refuses a certificate without its key, and a key without its certificate.
    ///
    /// # Errors
    /// `InvalidInput` for `cert and key`.
    pub fn check(&self, rules: Rules) -> Result<()> {
        if self.cert.is_some() != self.key.is_some() {
            return Err(rules.broken(
                "cert and key",
                "one is missing: a certificate needs its key, and a key its certificate",
            ));
        }
        Ok(())
    }

    /// Reads the trusted issuers from their file. `None` stands for those of the operating system. Blocks.
    ///
    /// # Errors
    /// `InvalidInput` names the file that cannot be read.
    pub fn read_ca(&self, rules: Rules) -> Result<Option<Vec<u8>>> {
        self.ca.map(|path| rules.read("ca", path)).transpose()
    }

    /// Reads the client's certificate (chain) and its key from their files. `None` unless both are set. Blocks.
    ///
    /// # Errors
    /// `InvalidInput` names the file that cannot be read.
    pub fn read_identity(&self, rules: Rules) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
        match (self.cert, self.key) {
            (Some(cert), Some(key)) => {
                Ok(Some((rules.read("cert", cert)?, rules.read("key", key)?)))
            }
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules::new("newdb: configuration");

    #[test]
    fn any_setting_asks_for_tls_unless_it_is_off() {
        let none = TlsSettings::default();
        assert_eq!(none.wanted(), None);
        let ca = TlsSettings {
            ca: Some(Path::new("/ca")),
            ..none
        };
        assert_eq!(ca.wanted(), Some(true));
        let off = TlsSettings {
            tls: Some(false),
            ..ca
        };
        assert_eq!(off.wanted(), Some(false));
    }

    #[test]
    fn certificate_and_key_are_given_and_read_together() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "pem").unwrap();
        let mut tls = TlsSettings {
            cert: Some(file.path()),
            ..TlsSettings::default()
        };
        let report = tls.check(RULES).unwrap_err().report().to_string();
        assert!(report.contains("cert and key"), "{report}");
        tls.key = Some(Path::new("/does/not/exist"));
        tls.check(RULES).unwrap();
        let report = tls.read_identity(RULES).unwrap_err().report().to_string();
        assert!(report.contains("key: cannot read"), "{report}");
        tls.key = tls.cert;
        let pem = b"pem".to_vec();
        assert_eq!(tls.read_identity(RULES).unwrap(), Some((pem.clone(), pem)));
        assert_eq!(tls.read_ca(RULES).unwrap(), None);
    }
}
