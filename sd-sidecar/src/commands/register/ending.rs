//! The end of a registration: drain, stop the command, deregister.

use std::future::pending;
use std::process::ExitCode;
use std::time::Duration;

use sd_core::RegistrationPhase;
use tokio::time::{sleep, timeout};

use super::{Kept, Over, Service, ended};
use crate::exit::Exit;
use crate::failure::Failure;
#[cfg(not(target_os = "linux"))]
use crate::no_watchdog::RunningCommand;
use crate::output::registration_story::RegisterEvent;
use crate::session::WITHDRAW_WITHIN;
#[cfg(target_os = "linux")]
use crate::watchdog::running_command::RunningCommand;

/// How long the last events of a registration that has ended may take.
const LAST_EVENTS: Duration = Duration::from_millis(100);

impl Service<'_> {
    /// Drains, stops the command and deregisters, in this order.
    pub(super) async fn finish(
        &self,
        mut over: Over,
        mut command: Option<RunningCommand>,
        mut kept: Option<Kept>,
    ) -> Result<ExitCode, Failure> {
        if let (Over::Asked, Some(kept)) = (&over, &mut kept)
            && let Some(ended) = self.drain(kept, &mut command).await
        {
            over = Over::CommandEnded(ended);
        }
        let (failure, status) = match over {
            Over::CommandEnded(ended) => (None, Some(ended)),
            Over::Asked => (None, self.stop_command(command, &mut kept).await),
            Over::Failed(failure) => (Some(failure), self.stop_command(command, &mut kept).await),
        };
        if let Some(Ok(status)) = status {
            self.log.tell(RegisterEvent::CommandEnded(status));
        }
        let withdrawn = match kept {
            Some(kept) => self.withdraw(kept).await,
            None => Ok(()),
        };
        match (failure, status) {
            (Some(failure), _) => Err(failure),
            (None, Some(status)) => {
                // The status is the command's, also where the record may be left.
                if let Err(failure) = withdrawn {
                    failure.tell();
                }
                status.map(ExitCode::from)
            }
            (None, None) => withdrawn.map(|()| Exit::Done.into()),
        }
    }

    /// Has readers send their calls elsewhere, and gives them time for it. Returns how the command ended, if it did meanwhile.
    async fn drain(
        &self,
        kept: &mut Kept,
        command: &mut Option<RunningCommand>,
    ) -> Option<Result<u8, Failure>> {
        let wait = self.wanted.drain_for();
        if wait.is_zero() {
            return None;
        }
        self.log.tell(RegisterEvent::Draining);
        let Kept {
            guard,
            events,
            registered,
        } = kept;
        let was_registered = *registered;
        let drained = async {
            let told = timeout(WITHDRAW_WITHIN, guard.set_ready(false)).await;
            let why = match told {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.report().to_string()),
                Err(_) => Some("no answer".to_owned()),
            };
            // Readers may see a record before we hear that it is there, but not one that the registry does not confirm now, either.
            if let Some(why) = why {
                if !was_registered && guard.phase() == RegistrationPhase::Registering {
                    return;
                }
                self.warn_not_told(&why);
            }
            sleep(wait).await;
        };
        let narrate = async {
            self.narrate(guard, events, registered).await;
            pending::<()>().await;
        };
        tokio::select! {
            biased;
            ended = ended(command) => Some(ended),
            () = self.stop.insisted.cancelled() => None,
            () = drained => None,
            () = narrate => None,
        }
    }

    async fn stop_command(
        &self,
        command: Option<RunningCommand>,
        kept: &mut Option<Kept>,
    ) -> Option<Result<u8, Failure>> {
        let command = command?;
        self.log.tell(RegisterEvent::Stopping);
        let narrate = async {
            if let Some(Kept {
                guard,
                events,
                registered,
            }) = kept
            {
                self.narrate(guard, events, registered).await;
            }
            pending::<()>().await;
        };
        tokio::select! {
            status = command.stop(&self.stop) => Some(status),
            () = narrate => None,
        }
    }

    async fn withdraw(&self, kept: Kept) -> Result<(), Failure> {
        let Kept {
            guard, mut events, ..
        } = kept;
        let instance = guard.instance();
        let (id, service, url) = (instance.id(), instance.service(), &self.session.url);
        let not_withdrawn = |why: &str| {
            Failure::new(format!(
                "cannot withdraw {id:?} of {service:?} at {url}: {why}"
            ))
        };
        let insisted = &self.stop.insisted;
        // One that has ended the command at once has been obeyed.
        let obeyed = insisted.is_cancelled();
        let withdrawn = tokio::select! {
            withdrawn = guard.deregister() => withdrawn.map_err(|error| {
                not_withdrawn(&error.report().to_string()).with(Exit::of(&error))
            }),
            () = insisted.cancelled(), if !obeyed => {
                Err(not_withdrawn("interrupted: the record may still be there"))
            }
        };
        let last_events = async {
            while let Some(event) = events.next().await {
                self.log.tell(RegisterEvent::registration(&instance, event));
            }
        };
        let _ = timeout(LAST_EVENTS, last_events).await;
        withdrawn
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::sync::Arc;

    use sd_core::clock::TokioClock;
    use sd_core::events::EventLog;
    use sd_core::{Error, ErrorKind, Registry, RegistryConfig};
    use sd_testing::{Answer, Call, Op, ScriptedBackend};
    use tokio::time::Instant;

    use super::*;
    use crate::cli::{Cli, Command};
    use crate::output::Output;
    use crate::session::Session;
    use crate::stop_request::StopRequest;

    /// What the registry is asked for by a command that is asked to stop 100 ms after its start.
    async fn asked_to_stop(line: &str, register: Answer) -> Vec<Call> {
        let backend = ScriptedBackend::default();
        backend.registrar.answer_all(Op::Register, register);
        let config = RegistryConfig::default().with_clock(Arc::new(TokioClock));
        let session = Session {
            registry: Registry::with_config(Arc::new(backend.clone()), config),
            url: "memory://".parse().unwrap(),
            output: Output::new(true),
        };
        let cli = Cli::read(line.split(' ').map(OsString::from)).unwrap();
        let Command::Register(wanted) = cli.command else {
            panic!("another command");
        };
        let stop = StopRequest::default();
        let service = Service {
            session: &session,
            wanted: &wanted,
            what: "register".to_owned(),
            stop: stop.clone(),
            log: EventLog::keeping(64),
        };
        let ask = async {
            sleep(Duration::from_millis(100)).await;
            stop.asked.cancel();
        };
        let instance = wanted.instance().unwrap();
        let (_, ()) = tokio::join!(service.run(instance), ask);
        backend.registrar.calls()
    }

    #[tokio::test(start_paused = true)]
    async fn a_record_that_readers_may_see_before_we_know_is_drained_as_well() {
        let late = Answer::SucceedAfter(Duration::from_millis(500));
        let line = "sdctl register greeter h:1 --drain-for 2s";
        let calls = asked_to_stop(line, late).await;
        let ops: Vec<_> = calls.iter().map(|call| call.op).collect();
        assert_eq!(ops, [Op::Register, Op::Update, Op::Withdraw]);
        assert!(!calls[1].instance.as_ref().unwrap().is_ready());
        assert!(calls[2].at - calls[1].at >= Duration::from_secs(2));
    }

    #[tokio::test(start_paused = true)]
    async fn readers_of_a_record_that_was_never_there_are_not_waited_for() {
        let start = Instant::now();
        let refused = Answer::Fail(Error::new(ErrorKind::Unavailable, "register"));
        let line = "sdctl register greeter h:1 --drain-for 1h";
        let calls = asked_to_stop(line, refused).await;
        assert!(calls.iter().all(|call| call.op != Op::Update));
        assert!(start.elapsed() < Duration::from_secs(60));
    }
}
