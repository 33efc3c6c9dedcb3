//! What happens, in order.

use std::sync::Arc;
use std::time::Duration;

use sd_core::{FencingToken, Registry};
use sd_grpc::{BalancedChannel, ChannelDump, EndpointDump, EndpointState};
use tokio::time::{Instant, sleep};

use crate::Result;
use crate::calls::{self, AT_A_TIME, Calls, DEADLINE};
use crate::fleet::{Fleet, Running};
use crate::screen::Screen;
use crate::server::TTL;
use crate::worker::{LEASE, Ledger, Progress, Worker};

/// Between two looks at the channel.
const TICK: Duration = Duration::from_millis(50);

/// For calls to go on undisturbed between two events.
const BREATH: Duration = Duration::from_millis(1500);

/// How long a server stops answering.
const PAUSE: Duration = Duration::from_secs(2);

/// For anything that is waited for, on a slow machine.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) async fn tell(fleet: Fleet) -> Result<()> {
    let registry = fleet.registry().await?;
    let service = fleet.service();
    let mut screen = Screen::new();
    screen.say(&format!("three servers of {service} start: a, b and c"));
    let a = fleet.start(&service, "a").await?;
    let b = fleet.start(&service, "b").await?;
    let c = fleet.start(&service, "c").await?;

    let mut story = Story {
        channel: calls::channel(&registry, &service)?,
        fleet,
        registry,
        service,
        calls: Calls::default(),
        screen,
    };
    story.three_serve().await?;
    let d = story.a_fourth_joins().await?;
    story.one_is_drained(a).await?;
    let killed_at = story.one_is_killed(b).await?;
    let c = story.one_falls_silent(c).await?;
    story.the_dead_one_is_forgotten(killed_at).await?;
    story.a_leader_is_frozen().await?;
    story.end(c, d).await
}

struct Story {
    fleet: Fleet,
    registry: Registry,
    service: String,
    channel: BalancedChannel,
    calls: Calls,
    screen: Screen,
}

impl Story {
    async fn three_serve(&mut self) -> Result<()> {
        self.until("three endpoints are ready", |dump| {
            ["a", "b", "c"].iter().all(|name| is_ready(dump, name))
        })
        .await?;
        self.calls.begin(&self.channel);
        self.screen.say(&format!(
            "all three are in use: {AT_A_TIME} calls at a time, each with a deadline of {DEADLINE:?}"
        ));
        self.breathe().await
    }

    /// It gets calls as soon as it is connected, and no other call pauses.
    async fn a_fourth_joins(&mut self) -> Result<Running> {
        let d = self.fleet.start(&self.service, "d").await?;
        let calls = &self.calls;
        let first = |dump: &ChannelDump| calls.first_answer(&endpoint(dump, "d")?.address);
        let mut answered = None;
        wait(
            &self.channel,
            calls,
            &mut self.screen,
            "a call of d",
            PATIENCE,
            |dump| {
                answered = first(dump);
                answered.is_some()
            },
        )
        .await?;
        let took = answered.unwrap_or(d.began).duration_since(d.began)?;
        self.screen.first_call_after(took);
        self.screen.say(&format!(
            "a fourth joins, d, and answers {} ms after it began to register",
            took.as_millis()
        ));
        self.breathe().await?;
        Ok(d)
    }

    /// It says that it wants no more calls, goes on answering for a while, deregisters and stops.
    async fn one_is_drained(&mut self, a: Running) -> Result<()> {
        self.screen.say("a is told to stop: it drains, then leaves");
        let drain = tokio::spawn(a.drain());
        self.until("a has left", |dump| endpoint(dump, "a").is_none())
            .await?;
        drain.await??;
        self.breathe().await
    }

    /// Its calls in flight are sent again to other servers. Its record stays until the time-to-live has passed.
    async fn one_is_killed(&mut self, b: Running) -> Result<Instant> {
        let in_flight = |dump: &ChannelDump| endpoint(dump, "b").map_or(0, |b| b.in_flight);
        self.until("calls are in flight", |dump| in_flight(dump) > 0)
            .await?;
        let in_flight = in_flight(&self.channel.dump());
        self.screen.say(&format!(
            "b is killed without notice, with {in_flight} calls in flight"
        ));
        b.kill().await?;
        let killed_at = Instant::now();
        self.until("b is not used any more", |dump| !is_ready(dump, "b"))
            .await?;
        self.breathe().await?;
        Ok(killed_at)
    }

    /// Its sockets stay open, so only unanswered calls reveal it.
    async fn one_falls_silent(&mut self, mut c: Running) -> Result<Running> {
        self.screen.say(&format!(
            "c stops answering for {PAUSE:?}: its calls move on"
        ));
        c.freeze().await?;
        let frozen_at = Instant::now();
        self.until("c is not used any more", |dump| !is_ready(dump, "c"))
            .await?;
        let noticed = frozen_at.elapsed().as_millis();
        self.screen.say(&format!(
            "c is out of the set, {noticed} ms after it fell silent"
        ));
        self.for_a_while(PAUSE.saturating_sub(frozen_at.elapsed()))
            .await?;
        c.thaw()?;
        self.until("c is used again", |dump| is_ready(dump, "c"))
            .await?;
        self.screen.say("c answers again and is in use again");
        self.breathe().await?;
        Ok(c)
    }

    async fn the_dead_one_is_forgotten(&mut self, killed_at: Instant) -> Result<()> {
        self.until("b is forgotten", |dump| endpoint(dump, "b").is_none())
            .await?;
        self.screen.say(&format!(
            "the registry has forgotten b, {:.1} s after its end: its time-to-live was {TTL:?}",
            killed_at.elapsed().as_secs_f64()
        ));
        Ok(())
    }

    /// Only one of two workers may write. No lease prevents the leader from stopping at the worst moment. The token in the
    /// ledger makes that harmless.
    async fn a_leader_is_frozen(&mut self) -> Result<()> {
        let ledger = Arc::new(Ledger::new(Vec::new()));
        let elector = self.registry.elector()?.into_any();
        let lease = LEASE.max(*elector.limits().ttl.start());
        let replaced_within = elector.safety().await?.failover_within(lease);
        let election = format!("{}/ledger", self.service);
        let election = (&*election, lease);
        let mut x = Worker::start(&self.fleet, election, "x", &ledger)?;
        let (token, _) = self.until_it_works("x", &x, Duration::ZERO).await?;
        let y = Worker::start(&self.fleet, election, "y", &ledger)?;
        self.screen.say(&format!(
            "worker x is elected and writes to a ledger with token {token}; y waits"
        ));
        self.breathe().await?;

        x.freeze()?;
        self.until("x is frozen", |_| matches!(x.progress(), Progress::Frozen))
            .await?;
        let frozen_at = Instant::now();
        self.screen.say(&format!(
            "x is frozen: it has just seen that it leads, and is about to write; the registry replaces it within {replaced_within:?}"
        ));
        let (token, since) = self.until_it_works("y", &y, replaced_within).await?;
        self.screen.say(&format!(
            "y is elected {:.1} s later (x had a lease of {lease:?}) and writes with token {token}",
            since.duration_since(frozen_at).as_secs_f64()
        ));
        self.for_a_while(BREATH / 2).await?;

        x.thaw();
        let mut refused = None;
        self.until("x tries to write", |_| {
            if let Progress::Refused { why, leads } = x.progress() {
                refused = Some((why, leads));
            }
            refused.is_some()
        })
        .await?;
        let Some((why, false)) = refused else {
            return Err("a leader that was frozen still believes that it leads".into());
        };
        self.screen.say(&format!(
            "x wakes and its write is refused: {why}. Asked again, x knows that it leads no more"
        ));
        x.stop().await?;
        y.stop().await
    }

    /// Returns the token and when it was elected.
    async fn until_it_works(
        &mut self,
        name: &str,
        worker: &Worker,
        within: Duration,
    ) -> Result<(FencingToken, Instant)> {
        let mut works = None;
        let happened = |_: &ChannelDump| {
            if let Progress::Works { token, since } = worker.progress() {
                works = Some((token, since));
            }
            works.is_some()
        };
        let Self {
            channel,
            calls,
            screen,
            ..
        } = self;
        let what = format!("{name} works");
        wait(channel, calls, screen, &what, within + PATIENCE, happened).await?;
        works.ok_or_else(|| "it does not work".into())
    }

    async fn end(mut self, c: Running, d: Running) -> Result<()> {
        self.calls.stop().await;
        let dump = self.channel.dump();
        self.screen.draw(&dump, &self.calls);
        let (c, d) = tokio::join!(c.drain(), d.drain());
        c.and(d)?;
        self.channel.close().await;
        self.registry.close().await?;
        self.screen.sum_up(&dump, &self.calls);
        match self.calls.failed() {
            0 => Ok(()),
            failed => Err(format!("{failed} calls failed").into()),
        }
    }

    async fn breathe(&mut self) -> Result<()> {
        self.for_a_while(BREATH).await
    }

    async fn for_a_while(&mut self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        self.until("time passes", |_| Instant::now() >= end).await
    }

    /// Draws the table until something has happened.
    async fn until(
        &mut self,
        what: &str,
        happened: impl FnMut(&ChannelDump) -> bool,
    ) -> Result<()> {
        let Self {
            channel,
            calls,
            screen,
            ..
        } = self;
        wait(channel, calls, screen, what, PATIENCE, happened).await
    }
}

async fn wait(
    channel: &BalancedChannel,
    calls: &Calls,
    screen: &mut Screen,
    what: &str,
    patience: Duration,
    mut happened: impl FnMut(&ChannelDump) -> bool,
) -> Result<()> {
    let give_up_at = Instant::now() + patience;
    loop {
        let dump = channel.dump();
        screen.draw(&dump, calls);
        if happened(&dump) {
            return Ok(());
        }
        if Instant::now() >= give_up_at {
            return Err(format!("{what:?} did not come true within {patience:?}").into());
        }
        sleep(TICK).await;
    }
}

fn endpoint<'a>(dump: &'a ChannelDump, name: &str) -> Option<&'a EndpointDump> {
    dump.endpoints.iter().find(|one| one.id.as_str() == name)
}

fn is_ready(dump: &ChannelDump, name: &str) -> bool {
    endpoint(dump, name).is_some_and(|one| one.state == EndpointState::Ready)
}
