//! `sdctl register`: keeps an instance registered until it is asked to stop, then withdraws it.

use std::time::Duration;

use sd_core::{RegistrationEvent, RegistrationGuard};

use crate::cli::arguments::Wanted;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::narrator::Narrator;
use crate::output::registration_story::{RegistrationStory, is_taken};
use crate::session::Session;
use crate::signals::Signals;

/// For what the backend still has to tell its server after the withdrawal.
const CLOSE_WITHIN: Duration = Duration::from_millis(500);

/// Does not wait for the registry: events tell how it goes.
pub(crate) async fn run(session: &Session, wanted: &Wanted) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    let instance = wanted
        .instance()
        .map_err(|error| Failure::misused(&error))?;
    let what = format!("register {:?} of {:?}", instance.id(), instance.service());
    let mut register = session.registry.register(instance);
    if let Some(ttl) = wanted.ttl {
        register = register.ttl(ttl);
    }
    let guard = register
        .in_background()
        .map_err(|error| session.failure(&what, &error))?;
    let (output, mut story) = (session.output, RegistrationStory::new(guard.instance()));
    let narrator = Narrator::start(guard.events(), move |event| story.tell(output, &event));
    let done = keep(session, guard, &mut signals, &what).await;
    narrator.finish().await;
    done
}

async fn keep(
    session: &Session,
    mut guard: RegistrationGuard,
    signals: &mut Signals,
    what: &str,
) -> Result<(), Failure> {
    let mut registered = false;
    loop {
        let event = tokio::select! {
            _ = signals.next() => return withdraw(session, guard, signals).await,
            event = guard.next_event() => event,
        };
        match event {
            Some(RegistrationEvent::Registered(_)) => registered = true,
            Some(RegistrationEvent::Retrying { error, .. })
                if !registered && is_taken(&error, &guard.instance()) =>
            {
                withdraw(session, guard, signals).await?;
                return Err(session.failure(what, &error));
            }
            Some(RegistrationEvent::Failed(error)) => return Err(session.failure(what, &error)),
            Some(_) => {}
            None => {
                return Err(Failure::new(format!("cannot {what}: its task has ended")));
            }
        }
    }
}

async fn withdraw(
    session: &Session,
    guard: RegistrationGuard,
    signals: &mut Signals,
) -> Result<(), Failure> {
    let instance = guard.instance();
    let (id, service, url) = (instance.id(), instance.service(), &session.url);
    let not_withdrawn = |why: &str| {
        Failure::new(format!(
            "cannot withdraw {id:?} of {service:?} at {url}: {why}"
        ))
    };
    tokio::select! {
        withdrawn = guard.deregister() => withdrawn.map_err(|error| {
            not_withdrawn(&error.report().to_string()).with(Exit::of(&error))
        }),
        () = signals.insisted() => {
            Err(not_withdrawn("interrupted: the record may still be there"))
        }
    }?;
    // The record is gone; a server that is slow to hear the rest is not worth waiting for.
    let _ = tokio::time::timeout(CLOSE_WITHIN, session.registry.close()).await;
    Ok(())
}
