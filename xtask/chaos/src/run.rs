//! A run: all sites side by side, then the verdict.

use std::fs;
use std::path::PathBuf;
use std::slice;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tokio::time::{Instant, sleep};

use crate::backend::Backend;
use crate::check::check;
use crate::child::Order;
use crate::deck::Deck;
use crate::history::{Election, Event};
use crate::plan::{Plan, plans};
use crate::playing::{Playing, side_by_side, write};
use crate::report::Report;
use crate::scene::Scene;
use crate::site::Site;
use crate::step::Step;
use crate::story::Story;
use crate::verdict::{Bars, Verdict, Visit};
use crate::{Options, Result, chain, round};

/// From when all are asked to leave to when they have.
const LEFT_WITHIN: Duration = Duration::from_secs(30);
const COUNT_EVERY: Duration = Duration::from_millis(100);
/// From a change at the server to when observers know.
const OBSERVED_WITHIN: Duration = Duration::from_secs(20);

/// False if a promise was broken or the run does not count.
pub(crate) fn run(backend: Backend, options: &Options) -> Result<bool> {
    let playing = Playing::new(options, "seed");
    let lasts = Duration::from_mins(options.minutes.into());
    let plans = plans(backend, options.quick)?;
    let seed = playing.seed;
    let deck = Arc::new(Deck::default());
    let until = Instant::now() + lasts;
    let played = playing.play(side_by_side(
        plans,
        (seed, &playing.folder),
        |plan, rng, folder| {
            let rounds = match plan.steps {
                Some(steps) => Rounds::Fixed(steps.iter()),
                None => Rounds::Drawn(Arc::clone(&deck), until),
            };
            visit(plan, rounds, rng, folder)
        },
    ))?;
    let bars = if options.quick {
        Bars::quick(backend)
    } else {
        Bars::of_minutes(backend, options.minutes)
    };
    let verdict = Verdict::new(backend, played, bars);
    let good = verdict.is_good();
    let report = Report {
        verdict: &verdict,
        seed,
    };
    let file = format!("chaos-{}.md", backend.name());
    playing.end(options, (&report.markdown(), &file), good)?;
    Ok(good)
}

/// The rounds of one site.
#[derive(Debug)]
enum Rounds {
    /// Until this moment, always what was played least often.
    Drawn(Arc<Deck>, Instant),
    /// These.
    Fixed(slice::Iter<'static, Step>),
}

impl Rounds {
    fn next(&mut self, plan: &Plan, rng: &mut Rng) -> Option<Step> {
        match self {
            Self::Drawn(_, until) if Instant::now() >= *until => None,
            Self::Drawn(deck, _) => Some(Step::of(deck.draw(plan.backend, plan.members, rng))),
            Self::Fixed(steps) => steps.next().copied(),
        }
    }
}

async fn visit(plan: Plan, mut rounds: Rounds, mut rng: Rng, folder: PathBuf) -> Result<Visit> {
    let mut site = Site::open(&plan, &folder, &mut rng).await?;
    let (label, safety) = (site.label.clone(), site.safety.clone());
    site.wait_for_leaders().await;
    let mut number = 0;
    while let Some(step) = rounds.next(&plan, &mut rng) {
        number += 1;
        let played = round::play(&mut site, number, step, rng.u64(..)).await;
        played.map_err(|error| {
            let kind = step.kind;
            format!("{label}: round {number}, {kind}: {}", chain(&error))
        })?;
    }
    let ended = end(&mut site).await;
    ended.map_err(|error| format!("{label}: at the end: {}", chain(&error)))?;
    let promise = site.promise();
    let (chronicle, servers) = site.close().await?;
    for (name, log) in servers.logs() {
        fs::write(folder.join(format!("server-{name}.log")), log)?;
    }
    let story = Story::new(promise, chronicle.lines());
    write(&folder.join("history.jsonl"), &story.lines)?;
    Ok(Visit {
        label,
        fails_over: plan.members > 1,
        findings: check(&story),
        story,
        safety,
    })
}

/// Lets everything come to rest, and looks what is left.
async fn end(site: &mut Site) -> Result<()> {
    site.order(Order::Stay).await?;
    site.wait_for_leaders().await;
    for election in Election::OURS {
        tell_backend(site, election).await?;
    }
    site.tell(Event::Ending);
    site.order(Order::Leave).await?;
    let nodes = site.nodes.len();
    let names: Vec<String> = site
        .nodes
        .iter()
        .map(|seat| seat.process.name().to_owned())
        .collect();
    let all_idle = |scene: &Scene| names.iter().all(|name| scene.idle.contains(name));
    if !site.chronicle.wait_until(LEFT_WITHIN, all_idle).await {
        return Err(format!("not all of the {nodes} candidates left in time").into());
    }
    // What killed processes left goes with its time-to-live, and the server looks for it now and then.
    let limit = site.safety.failover_within(site.ttl()) + Duration::from_secs(1);
    let give_up_at = Instant::now() + limit;
    let mut operator = site.servers.operator().await?;
    for election in Election::OURS {
        let entries = loop {
            let entries = operator.count(election).await?;
            if entries == 0 || Instant::now() >= give_up_at {
                break entries;
            }
            sleep(COUNT_EVERY).await;
        };
        site.tell(Event::Remaining { election, entries });
        tell_backend(site, election).await?;
    }
    Ok(())
}

/// Tells who leads according to the server, when the observers had time to learn it.
async fn tell_backend(site: &Site, election: Election) -> Result<()> {
    let mut operator = site.servers.operator().await?;
    let give_up_at = Instant::now() + OBSERVED_WITHIN;
    loop {
        let token = operator.leader(election).await?.map(|leader| leader.token);
        let left = give_up_at.duration_since(Instant::now());
        let is_observed = move |scene: &Scene| scene.is_observed(election, token);
        let known = site.chronicle.wait_until(left, is_observed).await;
        // Terms may end meanwhile.
        let now = operator.leader(election).await?.map(|leader| leader.token);
        if (known && now == token) || Instant::now() >= give_up_at {
            site.tell(Event::Backend {
                election,
                token: now,
            });
            return Ok(());
        }
    }
}
