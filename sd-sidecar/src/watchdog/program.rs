//! How this program is started once more, as another process of `sdctl`.

/// This very program, also if its file was replaced or deleted since it was started.
pub(super) const THIS_PROGRAM: &str = "/proc/self/exe";
pub(super) const WATCHDOG: &str = "__watchdog";
pub(super) const LAUNCHER: &str = "__launch";
