//! Discovery under faults: processes that register and others that read, over real servers that are broken, and whether every reader saw
//! what was there.
//!
//! A run plays the same kinds of fault as one of elections, and lets services leave and come as a rolling restart does. Then
//! [`check`](check::check) compares what each process was with what each reader saw.

mod check;
mod report;
mod site;
mod timeline;
mod visit;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tokio::time::Instant;

use crate::backend::Backend;
use crate::deck::Deck;
use crate::discovery::check::check;
use crate::discovery::report::Report;
use crate::discovery::site::Site;
use crate::discovery::timeline::Timeline;
use crate::discovery::visit::Visit;
use crate::history::merged;
use crate::kind::Kind;
use crate::plan::{Plan, discovery_plans};
use crate::playing::{Playing, side_by_side, write};
use crate::{Options, Result, chain};

/// What a quick run does, on one server.
const QUICK: [Kind; 6] = [
    Kind::KillCandidate,
    Kind::BlackHole,
    Kind::FreezeAboveTtl,
    Kind::HalfOpen,
    Kind::KillServer,
    Kind::Cut,
];

/// False if a promise was broken or the run does not count.
pub(crate) fn run(backend: Backend, options: &Options) -> Result<bool> {
    let playing = Playing::new(options, "discovery");
    let lasts = Duration::from_mins(options.minutes.into());
    let plans = discovery_plans(backend, options.quick)?;
    let seed = playing.seed;
    let deck = Arc::new(Deck::default());
    let until = Instant::now() + lasts;
    let visits = playing.play(side_by_side(
        plans,
        (seed, &playing.folder),
        |plan, rng, folder| {
            let fixed = options.quick.then(|| QUICK.to_vec());
            visit(plan, fixed, (Arc::clone(&deck), until), rng, folder)
        },
    ))?;
    let report = Report {
        backend,
        visits: &visits,
        seed,
        minutes: (!options.quick).then_some(options.minutes),
    };
    let good = report.is_good();
    let file = format!("chaos-discovery-{}.md", backend.name());
    playing.end(options, (&report.markdown(), &file), good)?;
    Ok(good)
}

async fn visit(
    plan: Plan,
    fixed: Option<Vec<Kind>>,
    (deck, until): (Arc<Deck>, Instant),
    mut rng: Rng,
    folder: PathBuf,
) -> Result<Visit> {
    let mut site = Site::open(&plan, &folder, &mut rng).await?;
    let label = site.label.clone();
    let mut fixed = fixed.map(Vec::into_iter);
    let mut faults = Vec::new();
    loop {
        let kind = match &mut fixed {
            Some(kinds) => kinds.next(),
            None if Instant::now() >= until => None,
            None => Some(deck.draw(plan.backend, plan.members, &mut rng)),
        };
        let Some(kind) = kind else {
            break;
        };
        faults.push(kind);
        let number = u32::try_from(faults.len())?;
        let played = site.play(number, kind, &mut rng).await;
        played.map_err(|error| format!("{label}: round {number}, {kind}: {}", chain(&error)))?;
    }
    let ended = site.end().await;
    ended.map_err(|error| format!("{label}: at the end: {}", chain(&error)))?;
    let (chronicle, servers) = site.close().await?;
    for (name, log) in servers.logs() {
        fs::write(folder.join(format!("server-{name}.log")), log)?;
    }
    let lines = merged(chronicle.lines());
    write(&folder.join("history.jsonl"), &lines)?;
    let (ttl, gone_within) = (plan.backend.ttl(), plan.backend.record_gone_within());
    Ok(Visit {
        label,
        faults,
        findings: check(&Timeline::new(&lines), ttl, gone_within),
    })
}
