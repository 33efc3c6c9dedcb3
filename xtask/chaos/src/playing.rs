//! What runs of all kinds have in common: a seed, a folder for histories and logs, an end by signal, a report.

use std::fs;
use std::future::Future;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fastrand::Rng;
use tokio::signal::unix::{SignalKind, signal};

use crate::history::Line;
use crate::plan::Plan;
use crate::{Options, Result, chain};

/// A run under way.
#[derive(Debug)]
pub(crate) struct Playing {
    /// All random choices follow from it.
    pub(crate) seed: u64,
    pub(crate) folder: PathBuf,
}

impl Playing {
    /// Histories and logs go to a folder whose name begins with `name`.
    pub(crate) fn new(options: &Options, name: &str) -> Self {
        let drawn = || fastrand::u64(..u64::from(u32::MAX));
        let seed = options.seed.unwrap_or_else(drawn);
        Self {
            seed,
            folder: options.histories.join(format!("{name}-{seed}")),
        }
    }

    /// Plays to the end, or until a signal.
    ///
    /// # Errors
    /// The run itself is broken, or was stopped.
    pub(crate) fn play<T>(&self, playing: impl Future<Output = Result<T>>) -> Result<T> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        let played = runtime.block_on(async {
            tokio::select! {
                played = playing => played,
                name = interrupted() => Err(format!("stopped by {}", name?).into()),
            }
        });
        // What was dropped with an error kills its processes; nothing may keep the runtime from going.
        runtime.shutdown_timeout(Duration::from_secs(5));
        let folder = self.folder.display();
        played.map_err(|error| format!("{}; logs are in {folder}", chain(&error)).into())
    }

    /// Shows the report, writes it as `file` if that is wanted, and keeps the histories of what was not good.
    pub(crate) fn end(
        &self,
        options: &Options,
        (report, file): (&str, &str),
        good: bool,
    ) -> Result<()> {
        if good && !options.keep {
            fs::remove_dir_all(&self.folder)?;
        } else {
            eprintln!("histories and logs are in {}", self.folder.display());
        }
        print(report);
        if let Some(out) = &options.out {
            fs::create_dir_all(out)?;
            let path = out.join(file);
            fs::write(&path, report)?;
            eprintln!("wrote {}", path.display());
        }
        Ok(())
    }
}

/// Plays all sites side by side, so that little of the time is spent waiting. Each has random choices and a folder of its own.
///
/// # Errors
/// That of the first site whose run is broken.
pub(crate) async fn side_by_side<T, F>(
    plans: Vec<Plan>,
    (seed, folder): (u64, &Path),
    visit: impl Fn(Plan, Rng, PathBuf) -> F,
) -> Result<Vec<T>>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    let mut playing = Vec::new();
    for (nth, plan) in plans.into_iter().enumerate() {
        let rng = Rng::with_seed(seed.wrapping_add(nth as u64));
        let folder = folder.join(format!("site-{}", nth + 1));
        playing.push(tokio::spawn(visit(plan, rng, folder)));
    }
    let mut visits = Vec::new();
    for visit in playing {
        visits.push(visit.await??);
    }
    Ok(visits)
}

#[expect(clippy::print_stdout, reason = "what the command is for")]
pub(crate) fn print(text: &str) {
    println!("{text}");
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

/// Writes a history, a line for each event.
pub(crate) fn write(path: &Path, lines: &[Line]) -> Result<()> {
    let mut file = std::io::BufWriter::new(fs::File::create(path)?);
    for line in lines {
        serde_json::to_writer(&mut file, line)?;
        file.write_all(b"\n")?;
    }
    Ok(file.flush()?)
}
