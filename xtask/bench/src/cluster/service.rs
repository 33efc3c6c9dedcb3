//! A config service in a process of its own, so that its memory is measured alone.

use std::io::{self, BufRead, BufReader, Read, Write as _};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use reqwest::Client;
use sd_cluster::server::{Admin, ConfigService};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use super::PATIENCE;
use crate::{Error, Result};

/// Of its operators. It listens on this host alone, and for as long as the bench runs.
const TOKEN: &str = "only-for-this-bench";
const ANY: &str = "127.0.0.1:0";

/// A service that runs. It is killed when this is dropped.
pub(super) struct Service {
    child: Child,
    pub(super) address: SocketAddr,
    operators: SocketAddr,
    http: Client,
}

impl Service {
    /// Starts this program again as a service, and waits until it listens.
    pub(super) fn start() -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("--keep-configs")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().ok_or("no stdout")?;
        let mut lines = BufReader::new(stdout).lines();
        let mut address = || -> Result<SocketAddr> {
            let line = lines.next().ok_or("the config service does not start")??;
            Ok(line.parse()?)
        };
        Ok(Self {
            address: address()?,
            operators: address()?,
            http: Client::new(),
            child,
        })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sets the configuration of a module, as operators do.
    pub(super) async fn set_config(&self, module: &str, config: String) -> Result<()> {
        let url = format!("http://{}/v1/modules/{module}/config", self.operators);
        let request = self.http.put(url).bearer_auth(TOKEN).body(config);
        request.timeout(PATIENCE).send().await?.error_for_status()?;
        Ok(())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the process does: says where modules and operators find it, and serves until its input ends.
pub(crate) fn keep_configs() -> Result<()> {
    let runtime = Runtime::new()?;
    let _service = runtime.block_on(async {
        let service = ConfigService::builder().start().await?;
        let modules = service.listen(ANY.parse()?).await?;
        let operators = TcpListener::bind(ANY).await?;
        let address = operators.local_addr()?;
        service.serve_admin(operators, Admin::new().token(TOKEN)?)?;
        writeln!(io::stdout(), "{modules}\n{address}")?;
        Ok::<_, Error>(service)
    })?;
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
