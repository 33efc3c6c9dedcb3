//! Runs a command so that it ends with what it was started for, a term or a registration, whatever becomes of `sdctl`.
//!
//! ```text
//!            orders: until when            starts, stops, kills, waits for
//!   sdctl ───────────────────► watchdog ───────────────────────────────────► the command and all that it starts
//!         ◄───────────────────
//!            report: ended
//! ```
//!
//! The [watchdog](process) is this program once more, as a process that does nothing else. It has the deadline and a boot-time timer
//! of its own, so the command is stopped in time if `sdctl` is frozen, and at once if `sdctl` dies: the socket between them then ends.
//! If the watchdog dies, the kernel kills the command, because the [launcher] asked for that, and `sdctl` kills the rest. Both adopt
//! orphans, so that all that the command has started [descends](descendants) from them until it has ended.

mod descendants;
pub(crate) mod environment;
mod launcher;
mod process;
mod program;
mod protocol;
pub(crate) mod role;
pub(crate) mod run_while_leading;
pub(crate) mod running_command;
pub(crate) mod supervised_command;
