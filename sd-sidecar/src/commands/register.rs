//! `sdctl register`: keeps an instance registered while it is well, until it is asked to stop or the command that serves there ends.

mod ending;

use std::convert::Infallible;
use std::future::pending;
use std::process::ExitCode;
use std::time::Duration;

use sd_core::events::EventLog;
use sd_core::{ErrorKind, Events, Instance, Register, RegistrationEvent, RegistrationGuard};
use sd_sidecar::checks::{Checks, Commands, Health};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::cli::arguments::Wanted;
use crate::failure::Failure;
use crate::logging::tell;
#[cfg(not(target_os = "linux"))]
use crate::no_watchdog::RunningCommand;
use crate::output::narrator::Narrator;
use crate::output::registration_story::{RegisterEvent, RegistrationStory, is_taken};
use crate::session::Session;
use crate::signals::Signals;
use crate::stop_request::StopRequest;
#[cfg(target_os = "linux")]
use crate::watchdog::running_command::RunningCommand;

/// For what the backend still has to tell its server after the withdrawal.
const CLOSE_WITHIN: Duration = Duration::from_millis(500);
/// When a change that the registry has refused is wanted again.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How many lines wait for an output that is not read.
const KEPT_EVENTS: usize = 64;

/// Does not wait for the registry: events tell how it goes.
pub(crate) async fn run(session: &Session, wanted: &Wanted) -> Result<ExitCode, Failure> {
    let ended = run_until_stopped(session, wanted).await;
    ended.map_err(|failure| failure.beside(&wanted.command))
}

async fn run_until_stopped(session: &Session, wanted: &Wanted) -> Result<ExitCode, Failure> {
    let mut signals = Signals::listen()?;
    let instance = wanted
        .instance()
        .map_err(|error| Failure::misused(&error))?;
    let log = EventLog::keeping(KEPT_EVENTS);
    let (output, mut story) = (session.output, RegistrationStory::new(instance.clone()));
    let narrator = Narrator::start(log.events(), move |event| story.tell(output, &event));
    let stop = StopRequest::default();
    let service = Service {
        what: format!("register {:?} of {:?}", instance.id(), instance.service()),
        session,
        wanted,
        stop: stop.clone(),
        log,
    };
    let pass_on = async {
        signals.next().await;
        stop.asked.cancel();
        signals.insisted().await;
        stop.insisted.cancel();
        pending::<Infallible>().await
    };
    let ended = tokio::select! {
        ended = service.run(instance) => ended,
        never = pass_on => match never {},
    };
    narrator.finish().await;
    ended
}

struct Service<'a> {
    session: &'a Session,
    wanted: &'a Wanted,
    what: String,
    stop: StopRequest,
    log: EventLog<RegisterEvent>,
}

/// A registration, and what was told of it.
struct Kept {
    guard: RegistrationGuard,
    events: Events<RegistrationEvent>,
    /// Whether the registry ever had the record.
    registered: bool,
}

/// Why there is nothing more to wait for.
enum Over {
    /// We are to stop.
    Asked,
    CommandEnded(Result<u8, Failure>),
    Failed(Failure),
}

impl Service<'_> {
    async fn run(self, instance: Instance) -> Result<ExitCode, Failure> {
        let mut register = self.session.registry.register(instance.clone());
        if let Some(ttl) = self.wanted.ttl {
            register = register.ttl(ttl);
        }
        // Before a command is started in vain.
        register.check().map_err(|error| self.failure(&error))?;
        let checks = Checks::start(&self.wanted.check, instance.endpoint(), Commands::Allowed)
            .map_err(|error| Failure::misused(&error))?;
        let mut command = self.start_command(&instance)?;
        let mut kept = None;
        let over = self
            .keep(register, &mut checks.health(), &mut command, &mut kept)
            .await;
        drop(checks);
        let ended = self.finish(over, command, kept).await;
        // What matters at the server is done; a server that is slow to hear the rest is not worth waiting for.
        let _ = timeout(CLOSE_WITHIN, self.session.registry.close()).await;
        ended
    }

    /// Registers the instance once it is well, and keeps the record true.
    async fn keep(
        &self,
        register: Register,
        health: &mut watch::Receiver<Health>,
        command: &mut Option<RunningCommand>,
        kept: &mut Option<Kept>,
    ) -> Over {
        tokio::select! {
            biased;
            ended = ended(command) => return Over::CommandEnded(ended),
            () = self.stop.asked.cancelled() => return Over::Asked,
            () = self.wait_until_healthy(health) => {}
        }
        let guard = match register.in_background() {
            Ok(guard) => guard,
            Err(error) => return Over::Failed(self.failure(&error)),
        };
        let Kept {
            guard,
            events,
            registered,
        } = kept.insert(Kept {
            events: guard.events(),
            guard,
            registered: false,
        });
        tokio::select! {
            biased;
            ended = ended(command) => Over::CommandEnded(ended),
            () = self.stop.asked.cancelled() => Over::Asked,
            failure = self.narrate(guard, events, registered) => Over::Failed(failure),
            never = self.follow(guard, health) => match never {},
        }
    }

    async fn wait_until_healthy(&self, health: &mut watch::Receiver<Health>) {
        loop {
            let now = health.borrow_and_update().clone();
            if now.passing {
                return;
            }
            self.log.tell(RegisterEvent::Waiting(now.checks));
            if health.changed().await.is_err() {
                pending::<()>().await;
            }
        }
    }

    /// Has readers see whether the checks pass.
    async fn follow(
        &self,
        guard: &RegistrationGuard,
        health: &mut watch::Receiver<Health>,
    ) -> Infallible {
        let mut ready = true;
        let mut told = Some(ready);
        loop {
            let now = health.borrow_and_update().clone();
            if now.passing != ready {
                ready = now.passing;
                self.log.tell(if ready {
                    RegisterEvent::Healthy
                } else {
                    RegisterEvent::Unhealthy(now.checks)
                });
            }
            if told != Some(ready) {
                let is_outdated =
                    async { health.wait_for(|now| now.passing != ready).await.is_ok() };
                told = tokio::select! {
                    () = self.set_ready(guard, ready) => Some(ready),
                    // What is newest counts, also while the registry refuses what was before.
                    true = is_outdated => None,
                };
            } else if health.changed().await.is_err() {
                pending::<()>().await;
            }
        }
    }

    /// Returns when the registry has it, or will.
    async fn set_ready(&self, guard: &RegistrationGuard, ready: bool) {
        let mut told = false;
        while let Err(error) = guard.set_ready(ready).await {
            // It stays wanted.
            if error.kind() == ErrorKind::Timeout {
                return;
            }
            if !std::mem::replace(&mut told, true) {
                self.warn_not_told(&error.report().to_string());
            }
            sleep(RETRY_AFTER).await;
        }
    }

    fn warn_not_told(&self, why: &str) {
        let url = &self.session.url;
        tell(&format!(
            "warning: cannot tell readers at {url} whether the instance is ready: {why}"
        ));
    }

    /// Tells what happens to the registration, until it cannot go on.
    async fn narrate(
        &self,
        guard: &RegistrationGuard,
        events: &mut Events<RegistrationEvent>,
        registered: &mut bool,
    ) -> Failure {
        while let Some(event) = events.next().await {
            let instance = guard.instance();
            self.log
                .tell(RegisterEvent::registration(&instance, event.clone()));
            match event {
                RegistrationEvent::Registered(_) => *registered = true,
                RegistrationEvent::Retrying { error, .. }
                    if !*registered && is_taken(&error, &instance) =>
                {
                    return self.failure(&error);
                }
                RegistrationEvent::Failed(error) => return self.failure(&error),
                _ => {}
            }
        }
        Failure::new(format!("cannot {}: its task has ended", self.what))
    }

    #[cfg(target_os = "linux")]
    fn start_command(&self, instance: &Instance) -> Result<Option<RunningCommand>, Failure> {
        use crate::watchdog::environment::{Environment, secret_variables};
        use crate::watchdog::supervised_command::CommandOutput;

        if self.wanted.command.is_empty() {
            return Ok(None);
        }
        let environment = Environment {
            set: vec![
                ("SD_SERVICE_NAME", instance.service().as_str().into()),
                ("SD_INSTANCE_ID", instance.id().as_str().into()),
                (
                    "SD_INSTANCE_ADDRESS",
                    instance.endpoint().to_string().into(),
                ),
            ],
            unset: secret_variables(&self.session.url),
        };
        let output = CommandOutput::beside(self.session.output);
        let (command, stop_within) = (&self.wanted.command, self.wanted.stop_within);
        RunningCommand::start(command, environment, output, stop_within).map(Some)
    }

    #[cfg(not(target_os = "linux"))]
    fn start_command(&self, _instance: &Instance) -> Result<Option<RunningCommand>, Failure> {
        if self.wanted.command.is_empty() {
            return Ok(None);
        }
        Err(Failure::no_commands_here())
    }

    fn failure(&self, error: &sd_core::Error) -> Failure {
        self.session.failure(&self.what, error)
    }
}

/// Waits for the end of the command, if there is one. Cancel-safe.
async fn ended(command: &mut Option<RunningCommand>) -> Result<u8, Failure> {
    match command {
        Some(command) => command.ended().await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::sync::Arc;

    use sd_core::clock::TokioClock;
    use sd_core::{Error, Registry, RegistryConfig};
    use sd_testing::{Answer, Op, ScriptedBackend};

    use super::*;
    use crate::cli::{Cli, Command};
    use crate::output::Output;

    #[tokio::test(start_paused = true)]
    async fn what_the_checks_say_now_counts_while_the_registry_refuses_what_they_said_before() {
        let backend = ScriptedBackend::default();
        let refused = Error::new(ErrorKind::Rejected, "update");
        backend
            .registrar
            .answer_next(Op::Update, Answer::Fail(refused));
        let config = RegistryConfig::default().with_clock(Arc::new(TokioClock));
        let session = Session {
            registry: Registry::with_config(Arc::new(backend.clone()), config),
            url: "memory://".parse().unwrap(),
            output: Output::new(true),
        };
        let line = "sdctl register greeter h:1".split(' ').map(OsString::from);
        let Command::Register(wanted) = Cli::read(line).unwrap().command else {
            panic!("another command");
        };
        let service = Service {
            session: &session,
            wanted: &wanted,
            what: "register".to_owned(),
            stop: StopRequest::default(),
            log: EventLog::keeping(64),
        };
        let guard = session.registry.register(wanted.instance().unwrap());
        let guard = guard.await.unwrap();
        let says = |passing| Health {
            passing,
            checks: Vec::new(),
        };
        let (health, mut now) = watch::channel(says(true));
        let changing = async {
            health.send_replace(says(false));
            sleep(RETRY_AFTER / 2).await;
            health.send_replace(says(true));
            sleep(4 * RETRY_AFTER).await;
        };
        tokio::select! {
            never = service.follow(&guard, &mut now) => match never {},
            () = changing => {}
        }
        assert!(guard.instance().is_ready());
        let calls = backend.registrar.calls();
        let not_ready = calls.iter().filter(|call| {
            let instance = call.instance.as_ref();
            call.op == Op::Update && instance.is_some_and(|instance| !instance.is_ready())
        });
        assert_eq!(not_ready.count(), 1, "it is not asked for again");
    }
}
