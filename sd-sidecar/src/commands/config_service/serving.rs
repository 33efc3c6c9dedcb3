//! `sdctl config-service serve`: runs a config service until it is told to stop.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use sd_cluster::server::{Admin, Builder, ConfigService};
use sd_core::{Error, ErrorKind};
use sd_sidecar::{open_files, systemd};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use crate::cli::Cli;
use crate::cli::arguments::Serving;
use crate::commands::http_api::token;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Output;
use crate::signals::Signals;

/// How long a stop may take. The service closes all connections at once, so that only a file that hangs takes longer.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// Returns when the service has stopped, or with `--check` when it was checked.
pub(crate) async fn serve(cli: &Cli, serving: &Serving) -> Result<Exit, Failure> {
    let output = Output::new(cli.json);
    let admin = admin(serving)?;
    if serving.check {
        return check(output, serving).await;
    }
    // From here on signals do not end the process by themselves.
    let mut signals = Signals::listen()?;
    open_files::raise();
    let running = tokio::select! {
        running = Running::start(serving, admin) => running?,
        // Nothing is served yet.
        _ = signals.next() => return Ok(Exit::Done),
    };
    running.tell(output, serving);
    systemd::ready("ready");
    let beating = systemd::watchdog(vec![Handle::current()]);
    let _watchdog = AbortOnDropHandle::new(tokio::spawn(beating));
    tokio::select! {
        _ = signals.next() => running.stop(&mut signals).await,
        // Its supervisor starts it again.
        () = running.service.ended() => Err(Failure::new("the config service has broken down; the log says why")),
    }
}

/// A service that listens.
struct Running {
    service: ConfigService,
    modules: Vec<SocketAddr>,
    operators: SocketAddr,
}

impl Running {
    async fn start(serving: &Serving, admin: Admin) -> Result<Self, Failure> {
        let operators = listen(serving.operators).await?;
        let mut listeners = Vec::with_capacity(serving.listen.len());
        for address in &serving.listen {
            listeners.push(listen(*address).await?);
        }
        let service = builder(serving)
            .start()
            .await
            .map_err(|error| failed(&error))?;
        let mut running = Self {
            operators: local(&operators)?,
            modules: Vec::with_capacity(listeners.len()),
            service,
        };
        // Modules last: they come as soon as they can.
        running
            .service
            .serve_admin(operators, admin)
            .map_err(|error| failed(&error))?;
        for listener in listeners {
            running.modules.push(local(&listener)?);
            running.service.serve(listener);
        }
        Ok(running)
    }

    /// Says where it listens, for which the log has a line as well.
    fn tell(&self, output: Output, serving: &Serving) {
        let modules: Vec<String> = self.modules.iter().map(SocketAddr::to_string).collect();
        let operators = format!("http://{}", self.operators);
        let file = serving.file.as_ref();
        let file = file.map(|file| file.display().to_string());
        let told = if output.is_json() {
            output.json(&json!({"modules": modules, "operators": operators, "file": file}))
        } else {
            output.line(&listens(&modules, &operators))
        };
        if let Err(failure) = told {
            // Modules depend on the service, whether its output is read or not.
            failure.tell();
        }
        info!(?modules, operators, file, "ready");
        if serving.file.is_none() {
            warn!(
                "configurations and variables are kept in memory, and gone with this process: name a --file to keep them"
            );
        }
    }

    async fn stop(self, signals: &mut Signals) -> Result<Exit, Failure> {
        info!("stopping");
        systemd::stopping(STOP_WITHIN);
        let late = || {
            let limit = humantime::format_duration(STOP_WITHIN);
            Failure::new(format!("the config service did not stop within {limit}"))
        };
        tokio::select! {
            () = self.service.stop() => Ok(Exit::Done),
            () = signals.insisted() => Err(Failure::new("asked to stop again: ended before all was closed")),
            () = sleep(STOP_WITHIN) => Err(late()),
        }
    }
}

fn listens(modules: &[String], operators: &str) -> String {
    let modules = modules.join(", ");
    format!("modules connect to {modules}, operators ask {operators}")
}

fn builder(serving: &Serving) -> Builder {
    let builder = ConfigService::builder();
    match &serving.file {
        Some(file) => builder.file(file),
        None => builder,
    }
}

/// Reads the token. Says what is wrong with it, and where a token is missing.
fn admin(serving: &Serving) -> Result<Admin, Failure> {
    if let Some(path) = &serving.token_file
        && is_open_to_others(path)
    {
        let line = format!(
            "{}: every user can read the token; try: chmod 0600",
            path.display()
        );
        return Err(Failure::new(line).with(Exit::Misused));
    }
    let token = token(serving.token_file.as_deref(), "SDCTL_CONFIG_SERVICE_TOKEN")?;
    let admin = match &token {
        Some(token) => Admin::new()
            .token(token.expose())
            .map_err(|error| failed(&error))?,
        None => Admin::new(),
    };
    admin
        .check_listener(serving.operators)
        .map_err(|error| failed(&error))?;
    Ok(admin)
}

/// Opens nothing that listens, and makes no file.
async fn check(output: Output, serving: &Serving) -> Result<Exit, Failure> {
    let kept = match &serving.file {
        None => "in memory".to_owned(),
        Some(file) => check_file(serving, file).await?,
    };
    let modules: Vec<String> = serving.listen.iter().map(SocketAddr::to_string).collect();
    let operators = format!("http://{}", serving.operators);
    if output.is_json() {
        output.json(&json!({"modules": modules, "operators": operators, "kept": kept}))?;
    } else {
        output.line(&listens(&modules, &operators))?;
        output.line(&format!("configurations and variables are kept {kept}"))?;
    }
    Ok(Exit::Done)
}

/// Returns where things are kept, in words.
async fn check_file(serving: &Serving, file: &Path) -> Result<String, Failure> {
    let shown = file.display();
    if !file.exists() {
        let folder = file.parent().filter(|folder| *folder != Path::new(""));
        if folder.is_some_and(|folder| !folder.is_dir()) {
            let line = format!("{shown}: the folder does not exist");
            return Err(Failure::new(line).with(Exit::Misused));
        }
        return Ok(format!("in {shown}, which will be made"));
    }
    match builder(serving).start().await {
        Ok(service) => {
            service.stop().await;
            Ok(format!("in {shown}"))
        }
        // That of the service which is to be started again.
        Err(error) if error.kind() == ErrorKind::Conflict => {
            Ok(format!("in {shown}, which a process has open now"))
        }
        Err(error) => Err(failed(&error).with(Exit::Misused)),
    }
}

#[cfg(unix)]
fn is_open_to_others(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).is_ok_and(|file| file.mode() & 0o007 != 0)
}

#[cfg(not(unix))]
fn is_open_to_others(_: &Path) -> bool {
    false
}

async fn listen(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        let exit = match error.kind() {
            std::io::ErrorKind::AddrInUse => Exit::Taken,
            _ => Exit::Failed,
        };
        Failure::new(format!("cannot listen at {address}: {error}")).with(exit)
    })
}

fn local(listener: &TcpListener) -> Result<SocketAddr, Failure> {
    listener
        .local_addr()
        .map_err(|error| Failure::new(format!("cannot listen: {error}")))
}

fn failed(error: &Error) -> Failure {
    Failure::new(error.report().to_string()).with(Exit::of(error))
}
