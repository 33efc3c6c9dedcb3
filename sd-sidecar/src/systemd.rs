//! What a program of ours tells systemd. Without systemd nothing of it does anything.

use std::time::Duration;

use sd_core::Printable;
use sd_notify::NotifyState;
use tokio::runtime::Handle;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::warn;

fn notify(states: &[NotifyState<'_>]) {
    // The variable that names the socket stays set: removing it would be unsafe beside other threads. A program that a check of the
    // agent runs gets no variable of ours.
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "systemd cannot be told");
    }
}

/// The program listens, and has read what it kept before.
pub fn ready(status: &str) {
    let status = Printable(status).to_string();
    notify(&[NotifyState::Ready, NotifyState::Status(&status)]);
}

/// How the program is, in words.
pub fn status(status: &str) {
    let status = Printable(status).to_string();
    notify(&[NotifyState::Status(&status)]);
}

/// The configuration is read again. [`ready`] follows.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => warn!(%error, "systemd cannot be told"),
    }
}

/// The program ends, and takes at most this long.
pub fn stopping(within: Duration) {
    let within = u32::try_from(within.as_micros()).unwrap_or(u32::MAX);
    notify(&[
        NotifyState::Stopping,
        NotifyState::ExtendTimeoutUsec(within),
    ]);
}

/// Tells systemd's watchdog that the program makes progress, for as long as each of the runtimes really runs tasks, and has a thread for what
/// blocks. Does not end.
pub async fn watchdog(runtimes: Vec<Handle>) {
    watchdog_while(runtimes, || std::future::ready(true)).await;
}

/// As [`watchdog`], while `makes_progress` also answers in time that what else the program consists of does.
pub async fn watchdog_while<F>(runtimes: Vec<Handle>, makes_progress: impl Fn() -> F)
where
    F: Future<Output = bool>,
{
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return std::future::pending().await;
    };
    let tell = || notify(&[NotifyState::Watchdog]);
    beat(limit, &runtimes, makes_progress, tell).await;
}

async fn beat<F>(
    limit: Duration,
    runtimes: &[Handle],
    makes_progress: impl Fn() -> F,
    beat: impl Fn(),
) where
    F: Future<Output = bool>,
{
    let mut ticks = interval((limit / 3).max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let mut all = true;
        for runtime in runtimes {
            let (task, blocking) = (runtime.spawn(async {}), runtime.spawn_blocking(|| ()));
            let both = async { tokio::try_join!(task, blocking) };
            all &= matches!(timeout(limit / 3, both).await, Ok(Ok(_)));
        }
        let progress = matches!(timeout(limit / 3, makes_progress()).await, Ok(true));
        if all && progress {
            beat();
        } else {
            warn!(
                "tasks or blocking calls do not run in time: the watchdog is not told that all is well"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn the_watchdog_is_told_nothing_while_a_runtime_is_stuck() {
        told_nothing_while(|other, stuck| drop(other.spawn(async move { stuck() }))).await;
    }

    #[tokio::test]
    async fn the_watchdog_is_told_nothing_while_no_thread_is_left_for_what_blocks() {
        told_nothing_while(|other, stuck| drop(other.spawn_blocking(stuck))).await;
    }

    #[tokio::test]
    async fn the_watchdog_is_told_nothing_while_the_program_makes_no_progress() {
        for (answers, expected) in [(None, 0), (Some(false), 0), (Some(true), 3)] {
            let beats = AtomicUsize::new(0);
            let makes_progress = || async move {
                match answers {
                    Some(answer) => answer,
                    None => std::future::pending().await,
                }
            };
            let beating = beat(Duration::from_millis(30), &[], makes_progress, || {
                beats.fetch_add(1, Ordering::SeqCst);
            });
            let until = async {
                while expected == 0 || beats.load(Ordering::SeqCst) < expected {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            let limit = if expected == 0 { 300 } else { 20_000 };
            let done = timeout(Duration::from_millis(limit), async {
                tokio::select! {
                    () = beating => {}
                    () = until => {}
                }
            });
            assert_eq!(done.await.is_ok(), expected > 0, "{answers:?}");
            assert!(beats.load(Ordering::SeqCst) >= expected);
            assert!(
                expected > 0 || beats.load(Ordering::SeqCst) == 0,
                "{answers:?}"
            );
        }
    }

    /// Has the only thread of its kind of a runtime do what `stick` has it do, which blocks, as a bug would.
    async fn told_nothing_while(stick: impl FnOnce(&Handle, Box<dyn FnOnce() + Send>)) {
        let other = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(1)
            .build()
            .unwrap();
        let beats = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&beats);
        let runtimes = vec![Handle::current(), other.handle().clone()];
        let watchdog = tokio::spawn(async move {
            let count = || {
                counted.fetch_add(1, Ordering::SeqCst);
            };
            let makes_progress = || std::future::ready(true);
            beat(Duration::from_millis(30), &runtimes, makes_progress, count).await;
        });
        let until = async |wanted: usize| {
            while beats.load(Ordering::SeqCst) < wanted {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let limit = Duration::from_secs(20);
        timeout(limit, until(3)).await.unwrap();
        let (unblock, go_on) = mpsc::channel::<()>();
        let (is_stuck, seen) = tokio::sync::oneshot::channel();
        let block = move || {
            let _ = is_stuck.send(());
            let _ = go_on.recv();
        };
        stick(other.handle(), Box::new(block));
        seen.await.unwrap();
        let before = beats.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(300)).await;
        // One may have been under way.
        assert!(beats.load(Ordering::SeqCst) <= before + 1);
        drop(unblock);
        timeout(limit, until(before + 4)).await.unwrap();
        watchdog.abort();
        other.shutdown_background();
    }
}
