//! `sdctl elect`: campaigns until it is asked to stop, and runs a command while it leads.

use std::cell::Cell;
use std::convert::Infallible;
use std::ffi::OsString;
use std::future::pending;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use sd_core::clock::BootClock;
use sd_core::port::AnyElector;
use sd_core::{Error, ErrorKind, Registry};
use sd_election::{Candidate, CandidatePhase, Leadership, Term};
use tokio::time::timeout;

use crate::cli::Cli;
use crate::cli::arguments::Candidacy;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::logging::tell;
use crate::output::election_story::ElectionStory;
use crate::output::narrator::Narrator;
use crate::session::Session;
use crate::signals::{Asked, Signals};
use crate::stop_request::StopRequest;

/// How long the registry may take to say whether it lets us in, when we are to stop before it has said anything.
const ADMIT_WITHIN: Duration = Duration::from_secs(1);
/// The user who pressed Ctrl-C waits for it.
const RESIGN_WITHIN: Duration = Duration::from_millis(1500);
/// For what the backend still has to tell its server after that.
const CLOSE_WITHIN: Duration = Duration::from_millis(500);

pub(crate) async fn run(cli: &Cli, candidacy: &Candidacy) -> Result<ExitCode, Failure> {
    let ended = run_until_stopped(cli, candidacy).await;
    ended.map_err(|failure| failure.beside(&candidacy.command))
}

/// Asked to pause, it gives up what it leads, stops, and begins again when it is told to go on: a stopped process cannot lead.
async fn run_until_stopped(cli: &Cli, candidacy: &Candidacy) -> Result<ExitCode, Failure> {
    let signals = Signals::listen()?;
    #[cfg(target_os = "linux")]
    let signals = signals.or_pause()?;
    let mut signals = signals;
    loop {
        let session = Session::open(cli)?;
        let paused = Cell::new(false);
        let ended = take_part(&session, candidacy, &mut signals, &paused).await;
        if !paused.get() {
            return ended;
        }
        if let Err(failure) = ended {
            failure.tell();
        }
        #[cfg(target_os = "linux")]
        crate::signals::pause_this_process()?;
    }
}

async fn take_part(
    session: &Session,
    candidacy: &Candidacy,
    signals: &mut Signals,
    paused: &Cell<bool>,
) -> Result<ExitCode, Failure> {
    let candidate = candidate(&session.registry, candidacy)
        .map_err(|error| error.explain(session, &candidacy.name))?;
    let (output, mut story) = (session.output, ElectionStory::new(candidate.name().clone()));
    let narrator = Narrator::start(candidate.events(), move |event| story.tell(output, &event));
    let stop = StopRequest::default();
    let elect = Elect {
        session,
        candidacy,
        candidate,
        stop: stop.clone(),
        warned: Cell::new(false),
    };
    let pass_on = async {
        paused.set(signals.next().await == Asked::ToPause);
        stop.asked.cancel();
        if paused.get() {
            while signals.next().await == Asked::ToPause {}
            paused.set(false);
        }
        signals.insisted().await;
        stop.insisted.cancel();
        pending().await
    };
    let ended = tokio::select! {
        ended = elect.until_done() => ended,
        never = pass_on => never,
    };
    narrator.finish().await;
    ended
}

/// Why there is no candidate.
enum Refused {
    BestEffort,
    Error(Error),
}

impl Refused {
    fn explain(self, session: &Session, name: &str) -> Failure {
        match self {
            Self::Error(error) => session.failure(&format!("campaign for {name:?}"), &error),
            Self::BestEffort => Failure::new(format!(
                "elections at {} are best effort, so two candidates may lead at once; try: --best-effort, if that is acceptable",
                session.url
            ))
            .with(Exit::Misused),
        }
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

fn candidate(registry: &Registry, candidacy: &Candidacy) -> Result<Candidate, Refused> {
    let builder = if candidacy.best_effort {
        Candidate::best_effort(registry, &candidacy.name)
    } else if let AnyElector::BestEffort(_) = registry.elector()? {
        return Err(Refused::BestEffort);
    } else {
        Candidate::builder(registry, &candidacy.name)
    };
    let ttl = candidacy.ttl;
    let builder = builder
        .ttl(ttl)
        .stop_margin(candidacy.stop_margin.unwrap_or(ttl / 4))
        .takeover_delay(candidacy.takeover_delay)
        // Whatever the registry's clock is: processes compare what they print.
        .clock(Arc::new(BootClock));
    let builder = match &candidacy.value {
        Some(value) => builder.value(value),
        None => builder,
    };
    Ok(builder.build()?)
}

struct Elect<'a> {
    session: &'a Session,
    candidacy: &'a Candidacy,
    candidate: Candidate,
    stop: StopRequest,
    /// Whether it was told what this registry's elections are not worth.
    warned: Cell<bool>,
}

/// How a campaign ended.
enum Won {
    Leadership(sd_core::Result<Leadership>),
    /// We are to stop.
    Stopped {
        /// Why the registry never let the candidate in, so that it never said whether something is left there.
        unreachable: Option<Error>,
    },
}

/// Why there is nothing more to do in a term.
enum Led {
    /// The term is over, or there is no command and we are to stop.
    NoLonger,
    /// The command has ended, by itself or because we are to stop.
    Finished(u8),
}

impl Elect<'_> {
    async fn until_done(self) -> Result<ExitCode, Failure> {
        let done = self.campaign().await;
        // What matters at the server is done; a server that is slow to hear the rest is not worth waiting for.
        let _ = timeout(CLOSE_WITHIN, self.session.registry.close()).await;
        done
    }

    async fn campaign(&self) -> Result<ExitCode, Failure> {
        loop {
            let leadership = match self.win().await {
                Won::Leadership(won) => {
                    won.map_err(|error| self.failure("campaign for", &error))?
                }
                Won::Stopped { unreachable } => return self.leave(unreachable).await,
            };
            if self.stop.asked.is_cancelled() {
                self.resign(leadership).await?;
                return Ok(Exit::Done.into());
            }
            let led = tokio::select! {
                led = self.lead(&leadership) => led,
                never = self.warn() => match never {},
            };
            match led {
                Err(failure) => {
                    let _ = self.resign(leadership).await;
                    return Err(failure);
                }
                Ok(Led::Finished(status))
                    if leadership.is_leader() || self.stop.asked.is_cancelled() =>
                {
                    if let Err(failure) = self.resign(leadership).await {
                        failure.tell();
                    }
                    return Ok(ExitCode::from(status));
                }
                Ok(_) if self.stop.asked.is_cancelled() => {
                    self.resign(leadership).await?;
                    return Ok(Exit::Done.into());
                }
                Ok(_) if self.candidacy.once => {
                    let why = leadership.ended().map_or_else(
                        || "its command was stopped".to_owned(),
                        |why| why.to_string(),
                    );
                    return Err(Failure::new(format!(
                        "the term of {} at {} is over: {why}",
                        self.candidacy.name, self.session.url
                    )));
                }
                // Dropping the leadership leaves in the background.
                Ok(_) => {}
            }
        }
    }

    /// Campaigns until it leads or is to stop.
    async fn win(&self) -> Won {
        // Dropping it leaves, and with that the candidate forgets why it did not join: so that is asked while the campaign goes on.
        let mut campaign = pin!(self.candidate.campaign());
        tokio::select! {
            biased;
            won = &mut campaign => return Won::Leadership(won),
            () = self.stop.asked.cancelled() => {}
        }
        tokio::select! {
            biased;
            won = &mut campaign => Won::Leadership(won),
            unreachable = self.why_it_never_joined() => Won::Stopped { unreachable },
        }
    }

    /// Leads until there is nothing more to do in this term.
    async fn lead(&self, term: &Term) -> Result<Led, Failure> {
        if !self.candidacy.command.is_empty() {
            return self.run_command(term).await;
        }
        tokio::select! {
            () = self.stop.asked.cancelled() => {}
            _ = term.lost() => {}
        }
        Ok(Led::NoLonger)
    }

    #[cfg(target_os = "linux")]
    async fn run_command(&self, term: &Term) -> Result<Led, Failure> {
        use crate::watchdog::environment::{Environment, secret_variables};
        use crate::watchdog::run_while_leading::run_while_leading;
        use crate::watchdog::supervised_command::CommandOutput;

        let output = CommandOutput::beside(self.session.output);
        let command = &self.candidacy.command;
        let environment = Environment {
            set: self.variables(term),
            unset: secret_variables(&self.session.url),
        };
        let status = run_while_leading(command, environment, output, term, &self.stop).await?;
        Ok(status.map_or(Led::NoLonger, Led::Finished))
    }

    #[cfg(not(target_os = "linux"))]
    #[expect(clippy::unused_async, reason = "as where it can be done")]
    async fn run_command(&self, _term: &Term) -> Result<Led, Failure> {
        Err(Failure::no_commands_here())
    }

    /// What the command finds in its environment.
    #[cfg(target_os = "linux")]
    fn variables(&self, term: &Term) -> Vec<(&'static str, OsString)> {
        use std::os::unix::ffi::OsStrExt;

        let token = term.token();
        let value = std::ffi::OsStr::from_bytes(self.candidate.value());
        vec![
            ("SD_ELECTION_NAME", term.name().as_str().into()),
            ("SD_ELECTION_ID", term.id().to_string().into()),
            ("SD_ELECTION_VALUE", value.to_owned()),
            ("SD_ELECTION_TOKEN", token.value().to_string().into()),
            ("SD_ELECTION_TOKEN_DOMAIN", token.domain().into()),
        ]
    }

    /// Prints once, without delaying anything, how this registry weakens what an election promises.
    async fn warn(&self) -> Infallible {
        if !self.warned.replace(true)
            && let Ok(safety) = self.candidate.safety().await
        {
            for note in safety.warnings() {
                tell(&format!("warning: {}", note.text));
            }
        }
        pending().await
    }

    /// Gives the term up, of which nothing is done any more.
    async fn resign(&self, leadership: Leadership) -> Result<(), Failure> {
        let (why, exit) = match timeout(RESIGN_WITHIN, leadership.resign()).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => (error.report().to_string(), Exit::of(&error)),
            Err(_) => ("no answer".to_owned(), Exit::Unreachable),
        };
        let failure = Failure::new(format!(
            "cannot resign from {} at {}: {why}; the term ends when its ttl has passed",
            self.candidacy.name, self.session.url
        ));
        Err(failure.with(exit))
    }

    /// Why the registry let the candidate into no queue. Waits for its first answer, but not for long.
    async fn why_it_never_joined(&self) -> Option<Error> {
        // Listened to before the state is read, so that no change is missed.
        let mut events = self.candidate.events();
        let answered = async {
            loop {
                let state = self.candidate.state();
                match state.phase {
                    // What is told of a campaign before this one says nothing of it.
                    CandidatePhase::Idle | CandidatePhase::Joining | CandidatePhase::Leaving => {}
                    _ => break None,
                }
                if state.error.is_some() {
                    break state.error;
                }
                events.next().await;
            }
        };
        let silent = |_| Some(Error::new(ErrorKind::Timeout, "join election"));
        timeout(ADMIT_WITHIN, answered).await.unwrap_or_else(silent)
    }

    /// Waits until a campaign that was dropped has left nothing behind.
    async fn leave(&self, unreachable: Option<Error>) -> Result<ExitCode, Failure> {
        let _ = timeout(RESIGN_WITHIN, self.session.registry.close()).await;
        let is_left = self.candidate.state().phase == CandidatePhase::Idle;
        let (why, exit) = match unreachable {
            // Whether something is left there, the registry never said.
            Some(error) => (error.report().to_string(), Exit::of(&error)),
            None if is_left => return Ok(Exit::Done.into()),
            None => ("no answer".to_owned(), Exit::Unreachable),
        };
        let failure = Failure::new(format!(
            "cannot leave {} at {}: {why}; the entry, if there is one, expires with its ttl",
            self.candidacy.name, self.session.url
        ));
        Err(failure.with(exit))
    }

    fn failure(&self, what: &str, error: &Error) -> Failure {
        let what = format!("{what} {:?}", self.candidacy.name);
        self.session.failure(&what, error)
    }
}

#[cfg(test)]
mod tests {
    use sd_core::memory::Memory;
    use sd_core::port::async_trait;
    use sd_core::{
        Backend, ErrorKind, Instancer, Registrar, Result, ServiceName, Snapshot, Watcher,
    };

    use super::*;
    use crate::cli::Command;

    /// The embedded registry as if its elections were best effort.
    #[derive(Debug)]
    struct Loose(Arc<dyn Backend>);

    #[async_trait]
    impl Instancer for Loose {
        async fn services(&self) -> Result<Vec<ServiceName>> {
            self.0.services().await
        }

        async fn list(&self, service: &ServiceName) -> Result<Snapshot> {
            self.0.list(service).await
        }

        async fn watch(
            &self,
            service: &ServiceName,
            known: Option<&Snapshot>,
        ) -> Result<Box<dyn Watcher>> {
            self.0.watch(service, known).await
        }
    }

    #[async_trait]
    impl Backend for Loose {
        fn name(&self) -> &'static str {
            "loose"
        }

        fn registrar(self: Arc<Self>) -> Option<Arc<dyn Registrar>> {
            Arc::clone(&self.0).registrar()
        }

        fn elector(self: Arc<Self>) -> Option<AnyElector> {
            let elector = Arc::clone(&self.0).elector()?.into_any();
            Some(AnyElector::BestEffort(elector))
        }

        async fn close(&self) -> Result<()> {
            self.0.close().await
        }
    }

    fn candidacy(line: &str) -> Candidacy {
        let arguments = line.split(' ').map(OsString::from);
        match Cli::read(arguments).unwrap().command {
            Command::Elect(candidacy) => candidacy,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn best_effort_elections_are_refused_unless_asked_for() {
        let backend = Arc::clone(Memory::new().connect().backend());
        let loose = Registry::new(Arc::new(Loose(backend)));
        let refused = candidate(&loose, &candidacy("sdctl elect a"));
        assert!(matches!(refused, Err(Refused::BestEffort)));
        assert!(candidate(&loose, &candidacy("sdctl elect a --best-effort")).is_ok());
    }

    #[test]
    fn the_stop_margin_is_at_most_a_quarter_of_the_ttl() {
        let registry = Memory::new().connect();
        for good in ["--ttl 8s", "--ttl 8s --stop-margin 2s", "--stop-margin 0s"] {
            let candidacy = candidacy(&format!("sdctl elect a {good}"));
            assert!(candidate(&registry, &candidacy).is_ok(), "{good}");
        }
        let candidacy = candidacy("sdctl elect a --ttl 8s --stop-margin 3s");
        match candidate(&registry, &candidacy) {
            Err(Refused::Error(error)) => assert_eq!(error.kind(), ErrorKind::InvalidInput),
            _ => panic!("it was not refused"),
        }
    }
}
