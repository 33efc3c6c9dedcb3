//! What our side does in the benches of every backend.

use std::time::Duration;

use sd_core::{Instance, Registry, Subscription};
use sd_election::{Candidate, Leadership};
use tokio::time::{Instant, sleep};

use crate::election::{until_it_waits, within};
use crate::{Error, Result};

/// Where every instance says that it listens.
pub(crate) const ADDRESS: &str = "127.0.0.1:50051";

/// Two registries, as in two processes: one registers, the other one watches.
pub(crate) struct Registering {
    writer: Registry,
    _reader: Registry,
    service: &'static str,
    subscription: Subscription,
}

impl Registering {
    /// Returns when the reader knows the service.
    pub(crate) async fn begin(
        [writer, reader]: [Registry; 2],
        service: &'static str,
        patience: Duration,
    ) -> Result<Self> {
        let subscription = reader.subscribe(service)?;
        subscription.wait_until_known(patience).await?;
        Ok(Self {
            writer,
            _reader: reader,
            service,
            subscription,
        })
    }

    /// From the call to the moment at which the reader has the instance. It is gone when this returns.
    pub(crate) async fn sample(&mut self) -> Result<Duration> {
        let instance = Instance::new(self.service, ADDRESS)?;
        let id = instance.id().clone();
        self.subscription.state_and_mark_seen();
        let started = Instant::now();
        let seen = async {
            loop {
                let state = self.subscription.changed().await?;
                if state.snapshot().get(&id).is_some() {
                    return Ok::<_, Error>(started.elapsed());
                }
            }
        };
        let register = async { Ok::<_, Error>(self.writer.register(instance).await?) };
        let (guard, seen) = tokio::try_join!(register, seen)?;
        guard.deregister().await?;
        while !self.subscription.state().snapshot().is_empty() {
            self.subscription.changed().await?;
        }
        Ok(seen)
    }
}

/// Two candidates with registries of their own, as in two processes, that take turns in leading.
pub(crate) struct HandingOver {
    _registries: [Registry; 2],
    leadership: Option<Leadership>,
    next: Candidate,
    other: Candidate,
}

impl HandingOver {
    /// Returns when one of them leads.
    pub(crate) async fn begin(registries: [Registry; 2], ttl: Duration) -> Result<Self> {
        // Whatever its elector guarantees.
        let build = |registry| {
            let candidate = Candidate::best_effort(registry, "handover");
            candidate.ttl(ttl).build()
        };
        let [leader, next] = [build(&registries[0])?, build(&registries[1])?];
        let leadership = within("the first one leads", leader.campaign()).await??;
        Ok(Self {
            _registries: registries,
            leadership: Some(leadership),
            next,
            other: leader,
        })
    }

    /// Lets one candidate wait behind the other one for so long, and then the other one resign. Returns how long it took from there
    /// until the campaign of the one that waited returned.
    pub(crate) async fn hand_over(&mut self, waits: Duration) -> Result<Duration> {
        let leadership = self.leadership.take().ok_or("no candidate leads")?;
        let elected = async {
            let leadership = self.next.campaign().await?;
            Ok::<_, Error>((Instant::now(), leadership))
        };
        let resigned = async {
            until_it_waits(&self.next).await?;
            sleep(waits).await;
            let began = Instant::now();
            leadership.resign().await?;
            Ok::<_, Error>(began)
        };
        let both = async { tokio::try_join!(elected, resigned) };
        let ((at, won), began) = within("the next one leads", both).await??;
        self.leadership = Some(won);
        std::mem::swap(&mut self.next, &mut self.other);
        Ok(at - began)
    }
}
