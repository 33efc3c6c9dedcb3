//! `sdctl drain`, `ready`, `unready`, `clear` and `deregister`: what an operator says of another process's record.

use sd_core::{ErrorKind, Incarnation, InstanceId, Override, RecordId, ServiceName};
use serde::Serialize;

use crate::cli::arguments::{Target, Wait};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::time::now;
use crate::session::{Session, service_name};

/// What is done to a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Set(Override),
    Clear,
    Remove,
}

impl Act {
    /// The command that does it.
    fn command(self) -> &'static str {
        match self {
            Self::Set(Override::Ready) => "ready",
            Self::Set(Override::Unready) => "unready",
            Self::Set(_) => "drain",
            Self::Clear => "clear",
            Self::Remove => "deregister",
        }
    }

    /// What the instance is then, for people.
    fn outcome(self) -> String {
        match self {
            Self::Set(said) => format!("is {said}, whatever its owner says"),
            Self::Clear => "is as its owner says".to_owned(),
            Self::Remove => "is removed; its owner, if it lives, registers it again".to_owned(),
        }
    }
}

pub(crate) async fn run(session: &Session, target: &Target, act: Act) -> Result<(), Failure> {
    let service = service_name(&target.service)?;
    let misused = |error: sd_core::Error| Failure::misused(&error);
    let id = InstanceId::new(&target.id).map_err(misused)?;
    let what = format!("{} {id:?} of {service:?}", act.command());
    let incarnation = match &target.incarnation {
        Some(text) => text.parse().map_err(misused)?,
        None => listed_run(session, &target.wait, &service, &id, &what).await?,
    };
    let record = RecordId {
        service,
        id,
        incarnation,
    };
    let registry = &session.registry;
    let acting = async {
        match act {
            Act::Set(said) => registry.set_override(&record, said).await,
            Act::Clear => registry.clear_override(&record).await,
            Act::Remove => registry.remove_record(&record).await,
        }
    };
    let acted = session.answer(&what, &target.wait, acting).await;
    acted.map_err(|error| {
        let failure = session.failure(&what, &error);
        match error.kind() {
            // Where a record is asked for, nothing else is missing.
            ErrorKind::NotFound => failure.with(Exit::NotFound),
            _ => failure,
        }
    })?;
    let done = Done::new(&record, act);
    if session.output.is_json() {
        session.output.json(&done)
    } else {
        let RecordId { service, id, .. } = &record;
        let (time, outcome) = (&done.time, act.outcome());
        session
            .output
            .line(&format!("{time}  {id} of {service} {outcome}"))
    }
}

/// The run whose record is listed, also if it has crashed and readers see its successor instead.
async fn listed_run(
    session: &Session,
    wait: &Wait,
    service: &ServiceName,
    id: &InstanceId,
    what: &str,
) -> Result<Incarnation, Failure> {
    let source = session.registry.instancer();
    let listed = session.ask(what, wait, source.list(service)).await?;
    let found = listed.get(id).map(|found| found.incarnation());
    found.ok_or_else(|| {
        Failure::new(format!(
            "cannot {what} at {}: the service has no such instance; try: sdctl list {service}",
            session.url
        ))
        .with(Exit::NotFound)
    })
}

/// What was done, in its JSON form.
#[derive(Debug, Serialize)]
struct Done<'a> {
    time: String,
    event: &'static str,
    #[serde(flatten)]
    record: &'a RecordId,
    r#override: Option<Override>,
}

impl<'a> Done<'a> {
    fn new(record: &'a RecordId, act: Act) -> Self {
        let (event, said) = match act {
            Act::Set(said) => ("overridden", Some(said)),
            Act::Clear => ("override_cleared", None),
            Act::Remove => ("removed", None),
        };
        Self {
            time: now(),
            event,
            record,
            r#override: said,
        }
    }
}
