//! Certificates for a server and its clients.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use sd_testing::free_port;
use server_programs::Redis;

/// Who issues the certificates of a test.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // OpenSSL takes a certificate for self-signed whose issuer is called as it is itself.
        params
            .distinguished_name
            .push(DnType::CommonName, "authority");
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    /// The file with its own certificate.
    pub(crate) fn ca(&self, folder: &Path, name: &str) -> PathBuf {
        written(folder, &format!("{name}-ca.pem"), self.0.pem())
    }

    /// Files with a certificate for 127.0.0.1 and its key.
    pub(crate) fn identity(&self, folder: &Path, name: &str) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &self.0).unwrap().pem();
        (
            written(folder, &format!("{name}.pem"), certificate),
            written(folder, &format!("{name}.key"), key.serialize_pem()),
        )
    }

    /// A server with a certificate of this authority, which takes clients that have one as well.
    pub(crate) fn server(&self, folder: &Path, program: Redis) -> Redis {
        let (certificate, key) = self.identity(folder, "server");
        let clients = self.ca(folder, "clients");
        program
            .with_tls(&certificate, &key, &clients, free_port)
            .unwrap()
    }
}

fn written(folder: &Path, name: &str, text: String) -> PathBuf {
    let file = folder.join(name);
    fs::write(&file, text).unwrap();
    file
}
