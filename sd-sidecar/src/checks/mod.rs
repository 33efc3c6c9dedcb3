//! Checks of an instance.
//!
//! ```text
//!   each check a task                     Health: one watch channel
//!   tcp, http, grpc, command  ──┐
//!   ttl   ◄── Checks::beat      ├──────►  passing, and what each check says
//!   pid                       ──┘
//! ```
//!
//! A check that asks is repeated, in time and in spite of panics; its thresholds decide from which answer on it passes or fails.

mod board;
mod command;
mod dial;
mod grpc;
mod http;
mod probe;
#[cfg(target_os = "linux")]
mod process;
mod repeated;
mod text;
mod thresholds;
mod ttl;

use std::sync::Arc;

use sd_core::{Endpoint, Error, ErrorKind, Printable, Result, brief};
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;

use self::board::{Board, Slot};
pub use self::dial::LookUps;
use self::probe::Probe;
use self::ttl::Ttl;
use crate::wire::{CheckKind, CheckSpec, CheckState};

/// What all checks of one instance say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Health {
    /// Whether all checks pass. An instance without checks is well.
    pub passing: bool,
    /// What each check says, in the order of the specifications.
    pub checks: Vec<CheckReport>,
}

/// What one check says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    /// What the check is called.
    pub name: String,
    /// What counts.
    pub state: CheckState,
    /// The last answer in words, escaped and at most 256 bytes long.
    pub output: String,
}

/// Whether checks may run programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commands {
    /// A check of the kind `command` is refused: for a process that checks what others ask it to.
    Refused,
    /// They run with the rights of this process, but without its environment: they get `PATH`, `HOME`, `LANG`, `LC_ALL`, `TZ` and `TMPDIR`
    /// of it, and `SD_CHECK_ADDRESS`, where others dial the instance. A program and what it leaves in its process group are killed after
    /// the time-out, and when the checks end. One that runs while this process is killed runs to its own end.
    Allowed,
}

/// The checks of one instance. They end when this is dropped.
#[derive(Debug)]
pub struct Checks {
    board: Board,
    /// Those that can be told how the process is.
    ttls: Vec<Ttl>,
    tasks: JoinSet<()>,
}

impl Checks {
    /// Starts the checks of an instance at `target`. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// `InvalidInput` says which check is wrong and what to write. `Denied` if one runs a program and may not.
    pub fn start(specs: &[CheckSpec], target: &Endpoint, commands: Commands) -> Result<Self> {
        Self::start_for(&LookUps::default(), specs, target, commands)
    }

    /// As [`start`](Self::start), for a caller that has checks of other instances as well: the look-ups of names for all of them count
    /// together.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_for(
        look_ups: &LookUps,
        specs: &[CheckSpec],
        target: &Endpoint,
        commands: Commands,
    ) -> Result<Self> {
        let names = CheckSpec::names(specs)?;
        if Handle::try_current().is_err() {
            return Err(invalid("checks must be started inside a tokio runtime"));
        }
        let board = Board::new(names.iter().zip(specs).map(|(name, spec)| CheckReport {
            name: name.clone(),
            state: spec.initial,
            output: "no answer yet".to_owned(),
        }));
        let mut checks = Self {
            ttls: Vec::new(),
            tasks: JoinSet::new(),
            board,
        };
        for (spec, slot) in specs.iter().zip(checks.board.slots()) {
            checks.start_one(look_ups, spec, slot, target, commands)?;
        }
        Ok(checks)
    }

    fn start_one(
        &mut self,
        look_ups: &LookUps,
        spec: &CheckSpec,
        slot: Slot,
        target: &Endpoint,
        commands: Commands,
    ) -> Result<()> {
        let probe = match &spec.kind {
            CheckKind::Ttl { ttl } => {
                let ttl = Ttl::new(*ttl, slot);
                self.tasks.spawn(ttl.clone().expire());
                self.ttls.push(ttl);
                return Ok(());
            }
            CheckKind::Pid { pid, started } => return self.start_pid(*pid, *started, slot),
            CheckKind::Command { .. } if commands == Commands::Refused => {
                let why = "checks of the kind command are not allowed here";
                return Err(Error::new(ErrorKind::Denied, "check").because(why));
            }
            kind => Arc::new(Probe::new(kind, target)?),
        };
        let look_ups = look_ups.clone();
        let attempt = move || {
            let (probe, look_ups) = (Arc::clone(&probe), look_ups.clone());
            async move { probe.attempt(&look_ups).await }
        };
        self.tasks.spawn(repeated::run(spec.clone(), slot, attempt));
        Ok(())
    }

    #[cfg(target_os = "linux")]
    fn start_pid(&mut self, pid: u32, started: Option<u64>, slot: Slot) -> Result<()> {
        if let Some(process) = process::find(pid, started, &slot)? {
            self.tasks.spawn(process::watch(process, pid, slot));
        }
        Ok(())
    }

    #[cfg(not(target_os = "linux"))]
    #[expect(clippy::unused_self, reason = "as where it can be done")]
    fn start_pid(&mut self, _pid: u32, _started: Option<u64>, _slot: Slot) -> Result<()> {
        let why = "a check of the kind pid needs Linux";
        Err(Error::new(ErrorKind::Unsupported, "check").because(why))
    }

    /// What the checks say, now and after every change.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.board.health()
    }

    /// The process says how it is, for its check of the kind `ttl` with this name. That counts at once.
    ///
    /// # Errors
    /// `NotFound` if there is no such check.
    pub fn beat(&self, check: &str, state: CheckState, output: &str) -> Result<()> {
        let ttl = self.ttls.iter().find(|ttl| ttl.is_called(check));
        let ttl = ttl.ok_or_else(|| {
            let asked = Printable(&brief(check)).to_string();
            let there: Vec<_> = self.ttls.iter().map(Ttl::name).collect();
            let there = if there.is_empty() {
                "there is none of this kind".to_owned()
            } else {
                format!("there are: {}", there.join(", "))
            };
            let why = format!("no check of the kind ttl is called {asked:?}; {there}");
            Error::new(ErrorKind::NotFound, "beat").because(why)
        })?;
        ttl.beat(state, output);
        Ok(())
    }
}

fn invalid(why: impl Into<String>) -> Error {
    Error::invalid_input("check", why)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;

    /// For anything but a bug, on a busy machine.
    const LIMIT: Duration = Duration::from_secs(30);

    fn target() -> Endpoint {
        "127.0.0.1:80".parse().unwrap()
    }

    fn specs(texts: &[&str]) -> Vec<CheckSpec> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    async fn wait_until(health: &mut watch::Receiver<Health>, passing: bool) -> Health {
        let waited = health.wait_for(|health| health.passing == passing);
        let health = timeout(LIMIT, waited).await.expect("it happens");
        health.unwrap().clone()
    }

    #[tokio::test]
    async fn an_instance_passes_while_its_port_takes_connections() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let target = address.to_string().parse().unwrap();
        let specs = specs(&["tcp,interval=100ms"]);
        let checks = Checks::start(&specs, &target, Commands::Refused).unwrap();
        let mut health = checks.health();
        let passing = wait_until(&mut health, true).await;
        assert_eq!(passing.checks[0].output, format!("connected to {address}"));
        drop(listener);
        let failing = wait_until(&mut health, false).await;
        let output = &failing.checks[0].output;
        assert!(output.contains("refused"), "{output}");
        let _listener = TcpListener::bind(address).await.unwrap();
        wait_until(&mut health, true).await;
    }

    #[tokio::test]
    async fn a_name_is_looked_up_and_a_socket_has_no_port() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let _unix = tokio::net::UnixListener::bind(&path).unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = tcp.local_addr().unwrap().port();
        let specs = specs(&[
            &format!("tcp:localhost:{port}"),
            &format!("tcp:unix:{}", path.display()),
        ]);
        let checks = Checks::start(&specs, &target(), Commands::Refused).unwrap();
        let health = wait_until(&mut checks.health(), true).await;
        assert_eq!(health.checks[0].name, "tcp");
        assert_eq!(health.checks[1].name, "tcp-2");
    }

    #[tokio::test]
    async fn all_checks_end_with_their_owner() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap().to_string().parse().unwrap();
        let pid = std::process::id();
        let specs = specs(&[
            "tcp",
            "http:/,timeout=60s",
            "grpc,timeout=60s",
            "command:sleep 1000,timeout=60s",
            "ttl:1h,initial=passing",
            &format!("pid:{pid}"),
        ]);
        let checks = Checks::start(&specs, &target, Commands::Allowed).unwrap();
        let mut health = checks.health();
        // Two of them hang at a server that says nothing.
        for _ in 0..3 {
            listener.accept().await.unwrap();
        }
        drop(checks);
        // Each task can tell something until it has ended.
        let ended = async { while health.changed().await.is_ok() {} };
        timeout(LIMIT, ended).await.expect("all have ended");
    }

    #[tokio::test]
    async fn a_program_runs_only_where_that_is_allowed() {
        let specs = specs(&["command:true"]);
        let refused = Checks::start(&specs, &target(), Commands::Refused).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Denied);
        let checks = Checks::start(&specs, &target(), Commands::Allowed).unwrap();
        wait_until(&mut checks.health(), true).await;
    }

    #[tokio::test]
    async fn what_can_never_work_is_refused_before_anything_is_started() {
        let mut bad = CheckSpec::new(CheckKind::Tcp { address: None });
        bad.interval = Duration::ZERO;
        for (specs, part) in [
            (vec![bad], "interval"),
            (specs(&["tcp,name=a", "http,name=a"]), "\"a\""),
            (specs(&["tcp"; 17]), "at most 16"),
        ] {
            let error = Checks::start(&specs, &target(), Commands::Refused).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.report().to_string().contains(part), "{error:?}");
        }
    }

    #[test]
    fn outside_a_runtime_they_are_an_error_and_no_panic() {
        let error = Checks::start(&specs(&["tcp"]), &target(), Commands::Refused).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
}
