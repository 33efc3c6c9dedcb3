//! `sdctl config-service serve`: runs a config service until it is told to stop.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Access, access};
use sd_cluster::server::{Admin, Builder, ConfigService, ServerTls};
use sd_core::{Error, ErrorKind};
use sd_sidecar::{open_files, systemd};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use crate::cli::Cli;
use crate::cli::arguments::{ListenAt, Serving};
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
    check_addresses(serving)?;
    let admin = admin(serving)?;
    let tls = tls(serving).await?;
    if serving.check {
        return check(output, serving).await;
    }
    // From here on signals do not end the process by themselves.
    let mut signals = Signals::listen()?;
    open_files::raise();
    let running = tokio::select! {
        running = Running::start(serving, admin, tls) => running?,
        // Nothing is served yet.
        _ = signals.next() => return Ok(Exit::Done),
    };
    running.tell(output, serving);
    systemd::ready("ready");
    let service = running.service.clone();
    let responds = move || {
        let service = service.clone();
        async move { service.responds().await.is_ok() }
    };
    let beating = systemd::watchdog_while(vec![Handle::current()], responds);
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
    /// With the ports that the system chose where none was named.
    modules: Vec<ListenAt>,
    operators: ListenAt,
}

impl Running {
    async fn start(
        serving: &Serving,
        mut admin: Admin,
        tls: Option<ServerTls>,
    ) -> Result<Self, Failure> {
        let (operators, at_operators) = listen(serving.operators).await?;
        let mut listeners = Vec::with_capacity(serving.listen.len());
        for at in &serving.listen {
            listeners.push(listen(*at).await?);
        }
        let service = builder(serving)
            .start()
            .await
            .map_err(|error| failed(&error))?;
        let tls_of = |at: ListenAt| tls.clone().filter(|_| at.is_tls);
        if let Some(tls) = tls_of(at_operators) {
            admin = admin.tls(tls);
        }
        // Modules last: they come as soon as they can.
        service
            .serve_admin(operators, admin)
            .map_err(|error| failed(&error))?;
        let mut modules = Vec::with_capacity(listeners.len());
        for (listener, at) in listeners {
            modules.push(at);
            match tls_of(at) {
                Some(tls) => service.serve_tls(listener, tls),
                None => service.serve(listener),
            }
        }
        Ok(Self {
            service,
            modules,
            operators: at_operators,
        })
    }

    /// Says where it listens, for which the log has a line as well.
    fn tell(&self, output: Output, serving: &Serving) {
        let (modules, operators) = (shown(&self.modules), operators_at(self.operators));
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

/// Where modules connect to.
fn shown(modules: &[ListenAt]) -> Vec<String> {
    let shown = modules.iter().map(|at| {
        let scheme = if at.is_tls { "isps://" } else { "" };
        format!("{scheme}{}", at.address)
    });
    shown.collect()
}

fn operators_at(at: ListenAt) -> String {
    let scheme = if at.is_tls { "https" } else { "http" };
    format!("{scheme}://{}", at.address)
}

/// Refuses addresses that cannot all be listened at, and TLS without a certificate or the other way round.
fn check_addresses(serving: &Serving) -> Result<(), Failure> {
    let misused = |line: String| Err(Failure::new(line).with(Exit::Misused));
    let all: Vec<&ListenAt> = serving.listen.iter().chain([&serving.operators]).collect();
    for (nth, at) in all.iter().enumerate() {
        let mut others = all.iter().skip(nth + 1);
        if at.address.port() != 0 && others.any(|other| other.address == at.address) {
            return misused(format!(
                "{} is named twice: each --listen and --operators needs an address of its own",
                at.address
            ));
        }
    }
    match (all.iter().any(|at| at.is_tls), &serving.tls_cert) {
        (true, None) => misused(
            "an address with isps:// or https:// needs a certificate: name --tls-cert and --tls-key".to_owned(),
        ),
        (false, Some(_)) => misused(
            "--tls-cert is for addresses with TLS, and none is named: write --listen isps://host:port or --operators https://host:port".to_owned(),
        ),
        _ => Ok(()),
    }
}

/// Reads the files of TLS.
async fn tls(serving: &Serving) -> Result<Option<ServerTls>, Failure> {
    let (Some(cert), Some(key)) = (&serving.tls_cert, &serving.tls_key) else {
        return Ok(None);
    };
    if is_open_to_others(key) {
        let line = format!(
            "{}: every user can read the key; try: chmod 0600",
            key.display()
        );
        return Err(Failure::new(line).with(Exit::Misused));
    }
    let read = ServerTls::read(cert, key, serving.tls_client_ca.clone()).await;
    read.map(Some)
        .map_err(|error| failed(&error).with(Exit::Misused))
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
        .check_listener(serving.operators.address)
        .map_err(|error| failed(&error))?;
    Ok(admin)
}

/// Opens nothing that listens, makes no file, and changes none.
async fn check(output: Output, serving: &Serving) -> Result<Exit, Failure> {
    let kept = match &serving.file {
        None => "in memory".to_owned(),
        Some(file) => check_file(serving, file).await?,
    };
    let (modules, operators) = (shown(&serving.listen), operators_at(serving.operators));
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
        let folder = folder.unwrap_or(Path::new("."));
        if !folder.is_dir() {
            let line = format!("{shown}: the folder does not exist");
            return Err(Failure::new(line).with(Exit::Misused));
        }
        if let Err(error) = access(folder, Access::WRITE_OK | Access::EXEC_OK) {
            let line = format!("{shown}: no file can be made in the folder: {error}");
            return Err(Failure::new(line).with(Exit::Misused));
        }
        return Ok(format!("in {shown}, which will be made"));
    }
    match builder(serving).check().await {
        Ok(()) => Ok(format!("in {shown}")),
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

/// A listener, and where it is.
async fn listen(at: ListenAt) -> Result<(TcpListener, ListenAt), Failure> {
    let ListenAt { address, is_tls } = at;
    let failed = |error: std::io::Error| {
        let exit = match error.kind() {
            std::io::ErrorKind::AddrInUse => Exit::Taken,
            _ => Exit::Failed,
        };
        Failure::new(format!("cannot listen at {address}: {error}")).with(exit)
    };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address: SocketAddr = listener.local_addr().map_err(failed)?;
    Ok((listener, ListenAt { address, is_tls }))
}

fn failed(error: &Error) -> Failure {
    Failure::new(error.report().to_string()).with(Exit::of(error))
}
