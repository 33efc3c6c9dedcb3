//! The setters of TLS, which are the same in every configuration.

/// The setters `with_tls`, `with_ca`, `with_identity` and `with_server_name`, and the method `tls`, which describes the settings as a
/// [`TlsSettings`](crate::TlsSettings). For the `impl` of a configuration with these fields, which stay its own so that serde and URLs
/// have all keys in one place and refuse unknown ones:
///
/// ```
/// # use std::path::PathBuf;
/// #[derive(Clone, Debug, Default, serde::Deserialize)]
/// #[serde(default, deny_unknown_fields)]
/// pub struct NewDbConfig {
///     tls: Option<bool>,
///     ca: Option<PathBuf>,
///     cert: Option<PathBuf>,
///     key: Option<PathBuf>,
///     server_name: Option<String>,
/// }
///
/// impl NewDbConfig {
///     sd_backend::tls_setters!();
/// }
///
/// assert_eq!(NewDbConfig::default().with_ca("/ca.pem").tls().wanted(), Some(true));
/// ```
#[macro_export]
macro_rules! tls_setters {
    () => {
        /// Uses TLS for endpoints without a scheme. Default: only if another TLS setting is set.
        #[must_use]
        pub fn with_tls(mut self, tls: bool) -> Self {
            self.tls = ::std::option::Option::Some(tls);
            self
        }

        /// Trusts only servers whose certificate was issued by an authority in this PEM file. Default: the authorities that the
        /// operating system trusts.
        #[must_use]
        pub fn with_ca(mut self, ca: impl ::std::convert::Into<::std::path::PathBuf>) -> Self {
            self.ca = ::std::option::Option::Some(ca.into());
            self
        }

        /// Presents this client certificate (chain) and its key to servers, both PEM files. They are read again when a connection
        /// has failed, at the latest, so renewed files need no restart.
        #[must_use]
        pub fn with_identity(
            mut self,
            cert: impl ::std::convert::Into<::std::path::PathBuf>,
            key: impl ::std::convert::Into<::std::path::PathBuf>,
        ) -> Self {
            self.cert = ::std::option::Option::Some(cert.into());
            self.key = ::std::option::Option::Some(key.into());
            self
        }

        /// Expects this name in the servers' certificates. Default: the host of each endpoint.
        #[must_use]
        pub fn with_server_name(
            mut self,
            server_name: impl ::std::convert::Into<::std::string::String>,
        ) -> Self {
            self.server_name = ::std::option::Option::Some(server_name.into());
            self
        }

        /// The settings of TLS.
        pub(crate) fn tls(&self) -> $crate::TlsSettings<'_> {
            $crate::TlsSettings {
                tls: self.tls,
                ca: self.ca.as_deref(),
                cert: self.cert.as_deref(),
                key: self.key.as_deref(),
                server_name: self.server_name.as_deref(),
            }
        }
    };
}
