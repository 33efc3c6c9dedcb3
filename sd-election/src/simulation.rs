//! A deterministic simulation of elections: the very code of candidates, campaigns and observers, on nodes with clocks of their
//! own, over a faulty network, in virtual time. Compiled only with the feature `simulation`, for tests and `cargo xtask chaos`.
//!
//! One number, the seed, decides everything: [`run`] with the same seed repeats every step.
//!
//! ```text
//! schedule.rs    what a seed decides beforehand          faults.rs       what goes wrong meanwhile
//! executor.rs    tasks, timers, true time, preemption    network.rs      messages late, lost, doubled
//! clock.rs       a clock for each node                   server.rs       the embedded registry, and what servers may do
//! application.rs what leaders do, and how they give up   backend.rs      makes a registry of the server
//! node.rs        the processes that take part            monitor.rs      looks at each node after each step
//! history.rs     what happened                           invariants.rs   what must be true of it
//! ```

mod application;
mod backend;
mod clock;
mod cut;
mod executor;
mod faults;
mod history;
mod invariants;
mod monitor;
mod network;
mod node;
mod observers;
mod run;
mod schedule;
mod server;
mod summary;

pub use self::invariants::violation::Violation;
pub use self::run::{Report, run, run_flawed};
pub use self::summary::{Caught, Summary, hunt_flaws, run_schedules};
pub use crate::flaw::Flaw;
