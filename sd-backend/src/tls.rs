//! The settings of TLS.

use std::fs::{self, File, FileType};
use std::io::{self, Read};
use std::path::Path;

use rustls_pki_types::pem::{PemObject, SectionKind};
use sd_core::Result;

use crate::rules::Rules;

/// More than any bundle of certificates has.
const MOST_BYTES: u64 = 16 * 1024 * 1024;

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

    /// Reads the trusted issuers from their file. `None` stands for those of the operating system. Blocks, but not for a pipe or a
    /// device.
    ///
    /// # Errors
    /// `InvalidInput` names the file that cannot be read or holds no certificate, and says what it is or holds.
    pub fn read_ca(&self, rules: Rules) -> Result<Option<Vec<u8>>> {
        self.ca
            .map(|path| read_pem(rules, "ca", path, Wanted::Certificate))
            .transpose()
    }

    /// Reads the client's certificate (chain) and its key from their files. `None` unless both are set. Blocks, but not for a pipe or
    /// a device.
    ///
    /// # Errors
    /// `InvalidInput` names the file that cannot be read or does not hold what it should, and says what it is or holds.
    pub fn read_identity(&self, rules: Rules) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
        match (self.cert, self.key) {
            (Some(cert), Some(key)) => Ok(Some((
                read_pem(rules, "cert", cert, Wanted::Certificate)?,
                read_pem(rules, "key", key, Wanted::Key)?,
            ))),
            _ => Ok(None),
        }
    }
}

/// What a PEM file must hold.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Certificate,
    Key,
}

impl Wanted {
    fn of(kind: SectionKind) -> Option<Self> {
        match kind {
            SectionKind::Certificate => Some(Self::Certificate),
            SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey => {
                Some(Self::Key)
            }
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::Key => "private key",
        }
    }
}

fn read_pem(rules: Rules, key: &str, path: &Path, wanted: Wanted) -> Result<Vec<u8>> {
    let pem = read_file(path)
        .map_err(|error| rules.broken(key, format!("cannot read {}: {error}", path.display())))?;
    match fault(&pem, wanted) {
        None => Ok(pem),
        Some(fault) => Err(rules.broken(key, format!("{} {fault}", path.display()))),
    }
}

/// Reads a file that ends. To open a pipe that no program writes to would wait for one.
fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let kind = fs::metadata(path)?.file_type();
    if !kind.is_file() {
        let why = format!("it is {}, not a file: name a PEM file", what_it_is(kind));
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let mut bytes = Vec::new();
    let read = File::open(path)?
        .take(MOST_BYTES + 1)
        .read_to_end(&mut bytes)?;
    if u64::try_from(read).is_ok_and(|read| read > MOST_BYTES) {
        let why = format!("it has more than {MOST_BYTES} bytes: name a PEM file");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    Ok(bytes)
}

#[cfg(unix)]
fn what_it_is(kind: FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt;

    if kind.is_dir() {
        "a folder"
    } else if kind.is_fifo() {
        "a pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

#[cfg(not(unix))]
fn what_it_is(kind: FileType) -> &'static str {
    if kind.is_dir() {
        "a folder"
    } else {
        "a device"
    }
}

/// What is wrong with a PEM file, without repeating what it holds.
fn fault(pem: &[u8], wanted: Wanted) -> Option<String> {
    let name = wanted.name();
    let (mut found, mut other) = (false, false);
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
        let Ok((kind, _)) = section else {
            return Some(format!(
                "is no PEM file from beginning to end: look for lines that are missing or cut, and write the {name} again"
            ));
        };
        let holds = Wanted::of(kind);
        found |= holds == Some(wanted);
        other |= holds.is_some_and(|holds| holds != wanted);
    }
    if found {
        return None;
    }
    let has = |text: &[u8]| pem.windows(text.len()).any(|part| part == text);
    let told = if pem.trim_ascii().is_empty() {
        "the file is empty".to_owned()
    } else if other && wanted == Wanted::Key {
        "it holds a certificate: are cert and key swapped?".to_owned()
    } else if other {
        "it holds a private key: name the file with the certificate".to_owned()
    } else if has(b"-----BEGIN ENCRYPTED PRIVATE KEY-----") {
        "its key is encrypted: write it without a password, with openssl pkey".to_owned()
    } else if pem.starts_with(&[0x30]) {
        "it seems to be DER: convert it, with openssl x509 or openssl pkey -inform der".to_owned()
    } else {
        format!(
            "write a PEM file that begins with -----BEGIN {}-----",
            name.to_uppercase()
        )
    };
    Some(format!("holds no {name}: {told}"))
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

    const CERT: &str = "-----BEGIN CERTIFICATE-----\nTm90IG9uZS4=\n-----END CERTIFICATE-----\n";
    const KEY: &str = "-----BEGIN PRIVATE KEY-----\nTm90IG9uZS4=\n-----END PRIVATE KEY-----\n";

    fn file(content: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), content).unwrap();
        file
    }

    fn read_as_ca(path: &Path) -> Result<Option<Vec<u8>>> {
        let tls = TlsSettings {
            ca: Some(path),
            ..TlsSettings::default()
        };
        tls.read_ca(RULES)
    }

    fn read_as_key(path: &Path) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
        let cert = file(CERT.as_bytes());
        let tls = TlsSettings {
            cert: Some(cert.path()),
            key: Some(path),
            ..TlsSettings::default()
        };
        tls.read_identity(RULES)
    }

    #[test]
    fn certificate_and_key_are_given_and_read_together() {
        let (cert, key) = (file(CERT.as_bytes()), file(KEY.as_bytes()));
        let mut tls = TlsSettings {
            cert: Some(cert.path()),
            ..TlsSettings::default()
        };
        let report = tls.check(RULES).unwrap_err().report().to_string();
        assert!(report.contains("cert and key"), "{report}");
        tls.key = Some(Path::new("/does/not/exist"));
        tls.check(RULES).unwrap();
        let report = tls.read_identity(RULES).unwrap_err().report().to_string();
        assert!(report.contains("key: cannot read"), "{report}");
        tls.key = Some(key.path());
        let read = tls.read_identity(RULES).unwrap();
        assert_eq!(read, Some((CERT.into(), KEY.into())));
        assert_eq!(tls.read_ca(RULES).unwrap(), None);
    }

    #[test]
    fn a_file_that_does_not_hold_what_it_should_is_refused_with_what_to_do() {
        let sesame = "c2VzYW1l";
        let cut = CERT.replace("-----END", sesame);
        let encrypted = KEY.replace("PRIVATE", "ENCRYPTED PRIVATE");
        for (content, why) in [
            ("", "ca: {} holds no certificate: the file is empty"),
            (sesame, "holds no certificate: write a PEM file"),
            (KEY, "it holds a private key"),
            ("0\u{2}", "DER"),
            (&cut, "no PEM file from beginning to end"),
        ] {
            let file = file(content.as_bytes());
            let why = why.replace("{}", &file.path().display().to_string());
            let report = read_as_ca(file.path()).unwrap_err().report().to_string();
            assert!(report.contains(&why), "{report}");
            assert!(!report.contains(sesame), "{report}");
        }
        for (content, why) in [
            (
                CERT,
                "key: {} holds no private key: it holds a certificate: are cert and key swapped?",
            ),
            (&encrypted, "its key is encrypted"),
        ] {
            let file = file(content.as_bytes());
            let why = why.replace("{}", &file.path().display().to_string());
            let report = read_as_key(file.path()).unwrap_err().report().to_string();
            assert!(report.contains(&why), "{report}");
        }
        let both = file(format!("# of the team\n{CERT}{KEY}").as_bytes());
        assert!(read_as_ca(both.path()).unwrap().is_some());
        assert!(read_as_key(both.path()).unwrap().is_some());
    }

    #[test]
    fn what_is_no_file_is_refused_at_once_and_called_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        for (path, what) in [
            (folder.path(), "it is a folder"),
            (&pipe, "it is a pipe"),
            (Path::new("/dev/zero"), "it is a device"),
        ] {
            for (key, report) in [
                ("ca", read_as_ca(path).unwrap_err().report().to_string()),
                ("key", read_as_key(path).unwrap_err().report().to_string()),
            ] {
                let begin = format!("{key}: cannot read {}: {what}", path.display());
                assert!(report.contains(&begin), "{report}");
            }
        }
    }
}
