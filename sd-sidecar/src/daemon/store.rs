//! What an agent keeps on disk, so that the next one goes on with the same registrations and the same incarnations.
//!
//! The file is replaced as a whole, at most one write is under way, and what changed meanwhile goes with the next one. What cannot be read of
//! a file is left out, and kept aside. A file that cannot be written is written later: registrations go on, and [`Store::trouble`] tells why
//! the next agent would not know of them.

mod contents;
mod damage;
mod file;
mod found;
mod name;
mod reader;
mod room;
mod stored;
mod sums;
mod unread;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sd_core::Printable;
use sd_core::retry::Backoff;
use tokio::sync::{Notify, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use self::damage::{Damage, MOST_NAMED};
use self::file::StateFile;
use self::found::Found;
use self::room::Room;
pub(crate) use self::room::bytes_of;
pub(crate) use self::stored::{Drain, State, Stored};

/// Between two attempts to write, at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long a write may take before it is told as trouble.
const WRITE_WITHIN: Duration = Duration::from_secs(3);
/// Why nothing is written while a write is under way for long.
const SLOW: &str = "the disk does not answer";
/// How long a caller waits for a change to be on disk.
const SAVE_WITHIN: Duration = Duration::from_secs(1);

/// Where an agent keeps its registrations on disk. One agent at a time has a file.
#[derive(Debug)]
pub struct Store {
    file: Arc<StateFile>,
    /// What was lost with a file that was damaged.
    damage: Option<String>,
    /// How many registrations of it are lost, or 1 if they cannot be counted.
    lost: usize,
    room: Arc<Room>,
    /// Counts what is to be written.
    wanted: watch::Sender<u64>,
    /// What of that has been written.
    written: watch::Sender<u64>,
    trouble: watch::Sender<Option<Arc<str>>>,
    /// The next attempt is to be made at once.
    hurry: Arc<Notify>,
    tasks: TaskTracker,
    stop: CancellationToken,
    _stop_on_drop: DropGuard,
}

/// Says that something is to be written.
#[derive(Clone, Debug)]
pub(crate) struct Saver(watch::Sender<u64>);

impl Saver {
    /// Something has changed.
    pub(crate) fn save(&self) {
        self.0.send_modify(|count| *count += 1);
    }
}

/// What the file said.
#[derive(Debug)]
pub struct Opened {
    /// The file.
    pub store: Store,
    /// What is in it.
    pub(crate) state: State,
}

impl Store {
    /// Opens the state at `path`, a file or a folder. It need not exist yet, and its folder is made if only the one above exists. What can be
    /// read of a damaged file is taken, and the file as it was is kept aside, with an error in the log.
    ///
    /// # Errors
    /// `Conflict` if another agent has it, under whichever name. `Unavailable` if it cannot be looked for, or is there and cannot be read or
    /// moved: to go on would overwrite it. `Unsupported` if a newer version has written it.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn open(path: impl Into<PathBuf>) -> sd_core::Result<Opened> {
        let path = path.into();
        let opening = spawn_blocking(move || {
            let file = StateFile::open(path)?;
            let found = file.read()?;
            Ok((file, found))
        });
        let opened = opening.await.unwrap_or_else(|error| {
            let failed = sd_core::Error::new(sd_core::ErrorKind::Unavailable, "open state");
            Err(failed.with_source(error))
        });
        let (file, found) = opened?;
        let (mut damage, mut lost) = (None, 0);
        let state = match found {
            Found::Nothing => State::default(),
            Found::Whole(state) => state,
            Found::PartlyDamaged {
                state,
                damage: found,
                kept_as,
            } => {
                let Damage {
                    head,
                    lost: all,
                    cut,
                } = &found;
                for lost in all.iter().take(MOST_NAMED) {
                    error!(
                        file = ?file.path(),
                        registration = %lost,
                        error = lost.why,
                        "a registration in the state is damaged, and lost"
                    );
                }
                error!(
                    file = ?file.path(),
                    ?kept_as,
                    lost = all.len(),
                    head,
                    cut,
                    "the state is damaged: the agent goes on with the registrations that can be read, and keeps the file as it was"
                );
                lost = all.len().max(1);
                let what = if found.loses_any() {
                    format!("registrations in it were lost, {}", found.what_is_lost())
                } else {
                    "its head alone, and no registration was lost".to_owned()
                };
                damage = Some(format!(
                    "the state was damaged: {what}; the file as it was is {}",
                    Printable(&kept_as.display().to_string())
                ));
                state
            }
            Found::Damaged { why, moved_to } => {
                error!(
                    file = ?file.path(),
                    moved_to = ?moved_to,
                    error = why,
                    "the state is damaged and was moved aside: the agent starts without the registrations in it"
                );
                lost = 1;
                damage = Some(format!(
                    "the state was damaged: all registrations in it were lost; the file as it was is {}",
                    Printable(&moved_to.display().to_string())
                ));
                State::default()
            }
        };
        let stop = CancellationToken::new();
        Ok(Opened {
            store: Self {
                file: Arc::new(file),
                damage,
                lost,
                room: Arc::default(),
                wanted: watch::Sender::new(0),
                written: watch::Sender::new(0),
                trouble: watch::Sender::new(None),
                hurry: Arc::default(),
                tasks: TaskTracker::new(),
                _stop_on_drop: stop.clone().drop_guard(),
                stop,
            },
            state,
        })
    }

    /// Says whether [`open`](Self::open) could use this path, as far as that can be told without changing anything, and what it would lose
    /// of a file that is damaged. An agent may be using it.
    ///
    /// # Errors
    /// As [`open`](Self::open), but for `Conflict`.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn check(path: impl Into<PathBuf>) -> sd_core::Result<Option<String>> {
        let path = path.into();
        let checked = spawn_blocking(move || StateFile::check(path)).await;
        checked.unwrap_or_else(|error| {
            let failed = sd_core::Error::new(sd_core::ErrorKind::Unavailable, "check state");
            Err(failed.with_source(error))
        })
    }

    /// What was lost at this start, if the file was damaged.
    pub fn damage(&self) -> Option<&str> {
        self.damage.as_deref()
    }

    /// How many registrations were lost at this start with a file that was damaged: at least 1, as they cannot always be counted.
    pub fn lost(&self) -> usize {
        self.lost
    }

    /// Why the file is not what it should be, if it is not.
    pub fn trouble(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.trouble.subscribe()
    }

    /// Writes what `snapshot` says, whenever something is to be saved.
    pub(crate) fn start(&self, snapshot: impl Fn() -> State + Send + 'static) {
        let writer = Writer {
            file: Arc::clone(&self.file),
            room: Arc::clone(&self.room),
            wanted: self.wanted.subscribe(),
            written: self.written.clone(),
            trouble: self.trouble.clone(),
            hurry: Arc::clone(&self.hurry),
            tasks: self.tasks.clone(),
            snapshot,
        };
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            // A write that is under way is finished by its thread.
            let _ = stop.run_until_cancelled(writer.run()).await;
        });
    }

    /// Whether the next agent could still read the file if it grew by so many bytes.
    pub(crate) fn has_room_for(&self, growth: u64) -> bool {
        self.room.is_there_for(growth)
    }

    /// Has the next calls of [`has_room_for`](Self::has_room_for) count what was let in and is not written yet.
    pub(crate) fn will_grow(&self, growth: u64) {
        self.room.promise(growth);
    }

    /// Something has changed.
    pub(crate) fn save(&self) {
        self.saver().save();
    }

    /// What says that something has changed, and has no part in the store.
    pub(crate) fn saver(&self) -> Saver {
        Saver(self.wanted.clone())
    }

    /// Waits until what has changed until now is on disk, unless there is trouble, for 1 s at most.
    pub(crate) async fn saved(&self) {
        let mut trouble = self.trouble.subscribe();
        let waiting = async {
            tokio::select! {
                () = self.written() => {}
                // It goes on without.
                _ = trouble.wait_for(Option::is_some) => {}
            }
        };
        let _ = timeout(SAVE_WITHIN, waiting).await;
    }

    /// As [`saved`](Self::saved), but until `until` at the latest, and says why it is not on disk. After trouble, the next attempt is made at
    /// once.
    ///
    /// # Errors
    /// Why it could not be written.
    pub(crate) async fn saved_now(&self, until: Instant) -> Result<(), Arc<str>> {
        let until = until.min(Instant::now() + SAVE_WITHIN);
        let saved = timeout_at(until, self.written_now()).await;
        saved.unwrap_or_else(|_| Err(SLOW.into()))
    }

    /// Writes everything now, whatever went wrong before.
    ///
    /// # Errors
    /// Why it could not be written.
    pub(crate) async fn flush(&self) -> Result<(), Arc<str>> {
        self.save();
        self.written_now().await
    }

    /// The last write was not waited for to its end.
    pub(crate) fn tell_slow(&self) {
        self.trouble.send_if_modified(|trouble| {
            let is_news = trouble.is_none();
            trouble.get_or_insert_with(|| SLOW.into());
            is_news
        });
    }

    async fn written_now(&self) -> Result<(), Arc<str>> {
        let mut trouble = self.trouble.subscribe();
        if trouble.borrow().is_some() {
            self.hurry.notify_one();
        }
        loop {
            tokio::select! {
                biased;
                () = self.written() => return Ok(()),
                Ok(()) = trouble.changed() => {}
            }
            // What takes long may still be done: its caller says for how long it waits.
            if let Some(why) = trouble.borrow_and_update().clone()
                && *why != *SLOW
            {
                return Err(why);
            }
        }
    }

    /// Waits until what has changed until now is on disk.
    async fn written(&self) {
        let wanted = *self.wanted.borrow();
        let mut written = self.written.subscribe();
        // The sender lives as long as this.
        let _ = written.wait_for(|written| *written >= wanted).await;
    }

    /// Writes no more.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// Writes no more, and leaves the file to the next agent once the last write is over. Cancel-safe.
    pub(crate) async fn close(&self) {
        self.stop();
        self.tasks.close();
        self.tasks.wait().await;
        self.file.release();
    }
}

/// The task that writes.
struct Writer<F> {
    file: Arc<StateFile>,
    room: Arc<Room>,
    wanted: watch::Receiver<u64>,
    written: watch::Sender<u64>,
    trouble: watch::Sender<Option<Arc<str>>>,
    hurry: Arc<Notify>,
    tasks: TaskTracker,
    snapshot: F,
}

impl<F: Fn() -> State> Writer<F> {
    async fn run(mut self) {
        let mut backoff = Backoff::new(Duration::from_millis(200), LONGEST_PAUSE);
        while self.wanted.changed().await.is_ok() {
            while let Err(why) = self.write().await {
                let before = self.trouble.send_replace(Some(why.as_str().into()));
                if before.is_none_or(|before| *before == *SLOW) {
                    warn!(file = ?self.file.path(), error = why, "the state cannot be written: tried again");
                }
                tokio::select! {
                    () = sleep(backoff.next_delay()) => {}
                    () = self.hurry.notified() => {}
                }
            }
            backoff.reset();
            if self
                .trouble
                .send_if_modified(|trouble| trouble.take().is_some())
            {
                info!(file = ?self.file.path(), "the state is written again");
            }
        }
    }

    async fn write(&mut self) -> Result<(), String> {
        let number = *self.wanted.borrow_and_update();
        let promised = self.room.promised();
        let state = (self.snapshot)();
        let (file, room) = (Arc::clone(&self.file), Arc::clone(&self.room));
        let writing = self.tasks.spawn_blocking(move || {
            let bytes = StateFile::encode(&state)?;
            room.is_written(bytes.len(), promised);
            file.write(&state, &bytes)
        });
        match told_if_slow(writing, &self.trouble).await {
            Ok(Ok(())) => {
                self.written.send_replace(number);
                Ok(())
            }
            Ok(Err(error)) => Err(error),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Waits for a write, and tells one that takes long as trouble meanwhile: a disk may answer never.
async fn told_if_slow<T>(
    writing: impl Future<Output = T>,
    trouble: &watch::Sender<Option<Arc<str>>>,
) -> T {
    let mut writing = std::pin::pin!(writing);
    if let Ok(done) = timeout(WRITE_WITHIN, &mut writing).await {
        return done;
    }
    let is_news = trouble.send_if_modified(|trouble| {
        let is_news = trouble.is_none();
        trouble.get_or_insert_with(|| SLOW.into());
        is_news
    });
    if is_news {
        warn!("{SLOW}: the state on it is an older one");
    }
    writing.await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_write_that_does_not_end_is_told_and_waited_for() {
        let trouble = watch::Sender::new(None);
        let mut told = trouble.subscribe();
        let (end, ended) = tokio::sync::oneshot::channel();
        let writing = told_if_slow(ended, &trouble);
        let telling = async {
            let why = told.wait_for(Option::is_some).await.unwrap().clone();
            assert_eq!(why.as_deref(), Some("the disk does not answer"));
            end.send(7).unwrap();
        };
        let both = async { tokio::join!(writing, telling) };
        let limit = 2 * WRITE_WITHIN;
        assert_eq!(timeout(limit, both).await.unwrap().0, Ok(7));
        told_if_slow(async {}, &watch::Sender::new(None)).await;
    }
}
