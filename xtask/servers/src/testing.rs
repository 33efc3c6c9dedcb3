//! Every server as a program of the test kit, which tests start, kill, freeze and start again.

use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use async_trait::async_trait;
use sd_core::{Error, ErrorKind, Result};
use sd_testing::{ServerProgram, free_port, required_env};
use tokio::task::spawn_blocking;

use crate::{Consul, Etcd, Knot, LocalServer, Moto, Redis, ZooKeeper};

/// Whether it serves, asked beside the runtime. Cancel-safe: a check that has begun goes on, and ends by itself.
///
/// # Errors
/// `Unavailable` with the reason why it does not.
pub async fn ready(server: Arc<dyn LocalServer>) -> Result<()> {
    let failed = || Error::new(ErrorKind::Unavailable, "test server check");
    let checked = spawn_blocking(move || server.serving()).await;
    let checked = checked.map_err(|panicked| failed().with_source(panicked))?;
    checked.map_err(|error| failed().with_source(error))
}

macro_rules! program_of_the_test_kit {
    ($server:ty, $variable:literal) => {
        impl $server {
            #[doc = concat!("The program that `", $variable, "` names, on free ports.")]
            ///
            /// # Errors
            /// `NotFound` if the variable is missing, `Unavailable` if there are no free ports.
            pub fn from_env() -> Result<Self> {
                Self::new(required_env($variable)?, free_port)
            }
        }

        #[async_trait]
        impl ServerProgram for $server {
            fn name(&self) -> &str {
                LocalServer::name(self)
            }

            fn prepare(&self, data: &Path) -> io::Result<()> {
                LocalServer::prepare(self, data)
            }

            fn command(&self, data: &Path) -> Command {
                LocalServer::command(self, data)
            }

            async fn ready(&self) -> Result<()> {
                ready(Arc::new(self.clone())).await
            }
        }
    };
}

impl ZooKeeper {
    /// The members of an ensemble, all of the program that `SD_TEST_ZK_BIN` names, on free ports.
    ///
    /// # Errors
    /// `NotFound` if the variable is missing, `Unavailable` if there are not enough free ports.
    pub fn ensemble_from_env(members: usize) -> Result<Vec<Self>> {
        Self::ensemble(required_env("SD_TEST_ZK_BIN")?, members, free_port)
    }
}

impl Redis {
    /// A primary, a replica and three Sentinels that know the primary as `name`, all of the program that `SD_TEST_REDIS_BIN` names, on
    /// free ports: see [`sentinels`](Self::sentinels).
    ///
    /// # Errors
    /// `NotFound` if the variable is missing, `Unavailable` if there are not enough free ports.
    pub fn sentinels_from_env(name: &str) -> Result<Vec<Self>> {
        Self::sentinels(required_env("SD_TEST_REDIS_BIN")?, name, free_port)
    }

    /// The six nodes of a cluster, all of the program that `SD_TEST_REDIS_BIN` names, on free ports: see [`cluster`](Self::cluster).
    ///
    /// # Errors
    /// `NotFound` if the variable is missing, `Unavailable` if there are not enough free ports.
    pub fn cluster_from_env() -> Result<Vec<Self>> {
        Self::cluster(required_env("SD_TEST_REDIS_BIN")?, free_port)
    }
}

program_of_the_test_kit!(Consul, "SD_TEST_CONSUL_BIN");
program_of_the_test_kit!(Etcd, "SD_TEST_ETCD_BIN");
program_of_the_test_kit!(Knot, "SD_TEST_DNS_BIN");
program_of_the_test_kit!(Moto, "SD_TEST_CLOUDMAP_BIN");
program_of_the_test_kit!(Redis, "SD_TEST_REDIS_BIN");
program_of_the_test_kit!(ZooKeeper, "SD_TEST_ZK_BIN");
