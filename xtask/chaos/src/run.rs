//! A run: all sites side by side, then the verdict.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::slice;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use sd_core::testing::required_env;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep};

use crate::check::check;
use crate::child::Order;
use crate::deck::Deck;
use crate::history::{Election, Event, Line};
use crate::kind::Kind;
use crate::report::Report;
use crate::round::Step;
use crate::scene::Scene;
use crate::site::{Plan, Site, TTL};
use crate::story::Story;
use crate::verdict::{Bars, Verdict, Visit};
use crate::{Error, Options, Result, chain, round};

/// What is played at the sites of a quick run, which shows that everything works together: nothing of it is left to chance.
const QUICK: [&[Step]; 2] = [
    &[
        Step::at(Kind::FreezeAboveTtl, Election::Plain),
        Step::at(Kind::KillCandidate, Election::Delayed),
        Step::of(Kind::DeleteEntry),
        Step::at(Kind::HalfOpen, Election::Plain),
        Step::of(Kind::KillServer),
    ],
    &[
        Step::at(Kind::FreezeAboveTtl, Election::Naive),
        Step::of(Kind::RevokeLease),
        Step::of(Kind::CutOffRaftLeader),
        Step::at(Kind::BlackHole, Election::Plain),
        Step::of(Kind::Compact),
    ],
];
/// From when all are asked to leave to when they have.
const LEFT_WITHIN: Duration = Duration::from_secs(30);
/// From a change at the server to when observers know.
const OBSERVED_WITHIN: Duration = Duration::from_secs(20);

/// False if a promise was broken or the run does not count.
pub(crate) fn run(options: &Options) -> Result<bool> {
    let seed = options
        .seed
        .unwrap_or_else(|| fastrand::u64(..u64::from(u32::MAX)));
    let lasts = Duration::from_mins(options.minutes.into());
    let plans = plans(options.quick)?;
    let folder = options.histories.join(format!("seed-{seed}"));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let played = runtime.block_on(async {
        tokio::select! {
            played = play_all(&plans, options.quick, lasts, seed, &folder) => played,
            name = interrupted() => Err(format!("stopped by {}", name?).into()),
        }
    });
    // What was dropped with an error kills its processes; nothing may keep the runtime from going.
    runtime.shutdown_timeout(Duration::from_secs(5));
    let played =
        played.map_err(|error| format!("{}; logs are in {}", chain(&error), folder.display()))?;
    let bars = if options.quick {
        Bars::quick()
    } else {
        Bars::of_minutes(options.minutes)
    };
    let verdict = Verdict::new(played, bars);
    let good = verdict.is_good();
    if good && !options.keep {
        fs::remove_dir_all(&folder)?;
    } else {
        eprintln!("histories and logs are in {}", folder.display());
    }
    let report = Report {
        verdict: &verdict,
        seed,
    };
    let report = report.markdown();
    print(&report);
    if let Some(out) = &options.out {
        fs::create_dir_all(out)?;
        let path = out.join("chaos.md");
        fs::write(&path, &report)?;
        eprintln!("wrote {}", path.display());
    }
    Ok(good)
}

#[expect(clippy::print_stdout, reason = "what the command is for")]
pub(crate) fn print(text: &str) {
    println!("{text}");
}

/// The sites of a run: each release of the server alone, and the newest with three members.
fn plans(quick: bool) -> Result<Vec<Plan>> {
    let plan = |variable: &str, members: usize| {
        let program = PathBuf::from(required_env(variable)?);
        Ok::<_, Error>(Plan { program, members })
    };
    if quick {
        return Ok(vec![
            plan("SD_TEST_ETCD_BIN", 1)?,
            plan("SD_TEST_ETCD_BIN", 3)?,
        ]);
    }
    Ok(vec![
        plan("SD_TEST_ETCD_3_4_BIN", 1)?,
        plan("SD_TEST_ETCD_3_6_BIN", 1)?,
        plan("SD_TEST_ETCD_3_6_BIN", 3)?,
    ])
}

async fn interrupted() -> Result<&'static str> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(tokio::select! {
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
        _ = hangup.recv() => "SIGHUP",
    })
}

/// Plays all sites side by side, so that little of the time is spent waiting.
async fn play_all(
    plans: &[Plan],
    quick: bool,
    lasts: Duration,
    seed: u64,
    folder: &Path,
) -> Result<Vec<Visit>> {
    let deck = Arc::new(Deck::default());
    let until = Instant::now() + lasts;
    let mut playing = Vec::new();
    for (nth, plan) in plans.iter().enumerate() {
        let rng = Rng::with_seed(seed.wrapping_add(nth as u64));
        let folder = folder.join(format!("site-{}", nth + 1));
        let rounds = if quick {
            Rounds::Fixed(QUICK[nth].iter())
        } else {
            Rounds::Drawn(Arc::clone(&deck), until)
        };
        let visit = visit(plan.clone(), rounds, rng, folder);
        playing.push(tokio::spawn(visit));
    }
    let mut visits = Vec::new();
    for visit in playing {
        visits.push(visit.await??);
    }
    Ok(visits)
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
    fn next(&mut self, members: usize, rng: &mut Rng) -> Option<Step> {
        match self {
            Self::Drawn(_, until) if Instant::now() >= *until => None,
            Self::Drawn(deck, _) => Some(Step::of(deck.draw(members, rng))),
            Self::Fixed(steps) => steps.next().copied(),
        }
    }
}

async fn visit(plan: Plan, mut rounds: Rounds, mut rng: Rng, folder: PathBuf) -> Result<Visit> {
    let mut site = Site::open(&plan, &folder, &mut rng).await?;
    let (label, safety) = (site.label.clone(), site.safety.clone());
    site.wait_for_leaders().await;
    let mut number = 0;
    while let Some(step) = rounds.next(plan.members, &mut rng) {
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
        fs::write(folder.join(format!("etcd-{name}.log")), log)?;
    }
    let story = Story::new(promise, chronicle.lines());
    write(&folder.join("history.jsonl"), &story.lines)?;
    Ok(Visit {
        label,
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
        return Err(format!("not all of {nodes} candidates left").into());
    }
    // What killed processes left goes with its time-to-live, and the server looks for it now and then.
    sleep(site.safety.failover_within(TTL) + Duration::from_secs(1)).await;
    let mut operator = site.servers.operator().await?;
    for election in Election::OURS {
        let entries = operator.count(election).await?;
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

fn write(path: &Path, lines: &[Line]) -> Result<()> {
    let mut file = std::io::BufWriter::new(fs::File::create(path)?);
    for line in lines {
        serde_json::to_writer(&mut file, line)?;
        file.write_all(b"\n")?;
    }
    Ok(file.flush()?)
}
