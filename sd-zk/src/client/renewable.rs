//! What a client is told again while its session lasts, because an operator has replaced a file.

use std::sync::Arc;

use sd_backend::{FileThread, Secret};
use sd_core::Result;
use tracing::debug;
use zookeeper_client as zk;

use crate::client::credentials::Credentials;
use crate::client::session::Session;
use crate::config::ZkConfig;
use crate::config::rules::FILES;

const OP: &str = "zk: renew credentials";

/// Reads what is in files, as it is now.
pub(crate) async fn credentials(
    op: &'static str,
    config: &Arc<ZkConfig>,
    files: &FileThread,
) -> Result<Credentials> {
    let (of_files, limit) = (Arc::clone(config), config.request_timeout);
    let reading = move || Credentials::read(&of_files);
    files.read_again(op, FILES, limit, reading).await
}

/// What a client can be told again while its session lasts.
pub(crate) struct Renewable {
    certs: Option<zk::TlsDynamicCerts>,
    login: Option<Secret>,
}

impl Renewable {
    /// What a client was told when it connected.
    pub(crate) fn new(certs: Option<zk::TlsDynamicCerts>, login: Option<Secret>) -> Self {
        Self { certs, login }
    }

    /// Tells the client what is in the files each time that it has lost its connection, or something was denied. Never
    /// returns.
    pub(crate) async fn keep_up(
        mut self,
        session: &Session,
        config: &Arc<ZkConfig>,
        files: &FileThread,
    ) {
        if self.certs.is_none() && config.password_file.is_none() {
            return std::future::pending().await;
        }
        let mut states = session.states();
        loop {
            let state = tokio::select! {
                state = states.changed() => state,
                () = session.denied() => zk::SessionState::Disconnected,
            };
            if state.is_terminated() {
                return std::future::pending().await;
            }
            if state == zk::SessionState::Disconnected {
                self.renew(session, config, files).await;
            }
        }
    }

    /// Tells the client what is in the files now. Where they cannot be read, what was told before stays.
    async fn renew(&mut self, session: &Session, config: &Arc<ZkConfig>, files: &FileThread) {
        let now = match credentials(OP, config, files).await {
            Ok(now) => now,
            Err(error) => {
                debug!(error = %error.report(), "credentials cannot be read again");
                return;
            }
        };
        let login = now.digest();
        if let (Some(certs), Some(now)) = (&self.certs, now.certs()) {
            certs.update(now);
        }
        if let Some(login) = login.filter(|login| Some(login) != self.login.as_ref())
            && let Ok(client) = session.client(OP).await
        {
            let logging_in = client.auth("digest", login.expose().as_bytes());
            if session.call(OP, logging_in).await.is_ok() {
                self.login = Some(login);
            }
        }
    }
}
