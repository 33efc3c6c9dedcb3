//! `sdctl leader`: who leads an election, once or with every change.

use sd_core::port::{CandidateId, Leader};
use sd_core::retry::Retry;
use sd_election::{LeaderView, Observer};
use serde::Serialize;

use crate::cli::arguments::Wait;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::changes::{JsonChanges, Watched};
use crate::output::time::{now, time_of};
use crate::output::{Style, reader_gone};
use crate::session::Session;

/// Nothing needs to be undone here, so that the signals keep their default action.
pub(crate) async fn run(
    session: &Session,
    name: &str,
    watch: bool,
    wait: &Wait,
) -> Result<Exit, Failure> {
    let what = format!("tell who leads {name:?}");
    let observer = Observer::new(&session.registry, name);
    let mut observer = observer.map_err(|error| session.failure(&what, &error))?;
    if watch {
        return tokio::select! {
            () = reader_gone() => Ok(Exit::Done),
            done = follow(session, observer, &what) => done,
        };
    }
    let view = session
        .ask(&what, wait, first_answer(&mut observer))
        .await?;
    let told = Told::new(session, &observer, &view);
    if session.output.is_json() {
        session.output.json(&told)?;
    } else {
        session.output.line(&told.sentence())?;
    }
    Ok(match view.leader {
        Some(_) => Exit::Done,
        None => Exit::NoLeader,
    })
}

/// What the registry says, or why it does not: asked once, as all commands do that do not watch.
async fn first_answer(observer: &mut Observer) -> sd_core::Result<LeaderView> {
    loop {
        let view = observer.changed().await?;
        if view.is_known() {
            return Ok(view);
        }
        if let Some(error) = view.status.error() {
            return Err(error.clone());
        }
    }
}

async fn follow(session: &Session, mut observer: Observer, what: &str) -> Result<Exit, Failure> {
    let mut json = JsonChanges::default();
    loop {
        let view = observer.changed().await;
        let view = view.map_err(|error| session.failure(what, &error))?;
        let error = view.status.error();
        if let Some(error) = error.filter(|error| error.kind().retry() == Retry::Never) {
            return Err(session.failure(what, error));
        }
        let told = Told::new(session, &observer, &view);
        if session.output.is_json() {
            json.print(session.output, told)?;
        } else {
            let line = format!("{}  {:<12}  {}", now(), told.status, told.sentence());
            session.output.styled(told.style(), &line)?;
        }
    }
}

/// The JSON form.
#[derive(Debug, Serialize)]
struct Told<'a> {
    name: &'a str,
    leader: Option<LeaderTold>,
    status: &'static str,
    /// Since when what is known cannot be trusted, RFC 3339.
    since: Option<String>,
    /// Why it cannot be trusted.
    error: Option<String>,
    /// How often the registry's history was replaced since this command began to watch.
    lineage: u32,
}

impl Watched for Told<'_> {
    fn since(&mut self) -> &mut Option<String> {
        &mut self.since
    }
}

#[derive(Debug, Serialize)]
struct LeaderTold {
    /// None if another program leads, which has no such id.
    id: Option<CandidateId>,
    value: String,
    token: u64,
    token_domain: String,
}

impl From<&Leader> for LeaderTold {
    fn from(leader: &Leader) -> Self {
        Self {
            id: leader.id,
            value: String::from_utf8_lossy(&leader.value).into_owned(),
            token: leader.token.value(),
            token_domain: leader.token.domain().to_owned(),
        }
    }
}

impl<'a> Told<'a> {
    fn new(session: &Session, observer: &'a Observer, view: &LeaderView) -> Self {
        let since = view.status.since();
        Self {
            name: observer.name().as_str(),
            leader: view.leader.as_ref().map(LeaderTold::from),
            status: view.status.as_str(),
            since: since.map(|since| time_of(since, session.clock())),
            error: view.status.error().map(|error| error.report().to_string()),
            lineage: view.lineage,
        }
    }

    fn style(&self) -> Style {
        match (self.status, &self.leader) {
            ("live", Some(_)) => Style::Good,
            ("live", None) => Style::Bad,
            _ => Style::Doubtful,
        }
    }

    /// The form for people.
    fn sentence(&self) -> String {
        let name = self.name;
        let who = match &self.leader {
            Some(leader) => {
                let id = leader.id.map(|id| format!(", id {id}"));
                format!(
                    "{name} is led by {}, token {}{}",
                    leader.value,
                    leader.token,
                    id.unwrap_or_default()
                )
            }
            None if self.status == "initializing" => format!("{name}: leader not known yet"),
            None => format!("{name}: no leader"),
        };
        match &self.error {
            Some(error) => format!("{who}: {error}"),
            None => who,
        }
    }
}
