#![doc = include_str!("../README.md")]

mod campaign;
mod cancellation;
mod candidate;
mod config;
mod election_thread;
mod end_reason;
mod event;
mod fencing;
mod flaw;
pub mod instrument;
mod leadership;
mod lock;
mod observer;
#[cfg(feature = "simulation")]
pub mod simulation;
mod term;

pub use crate::candidate::{Candidate, CandidateBuilder, ElectionEvents};
pub use crate::config::{DEFAULT_CLOCK_ERROR, DEFAULT_TTL, StepDown, TermConfig};
pub use crate::end_reason::EndReason;
pub use crate::event::{CandidatePhase, CandidateState, ElectionEvent};
pub use crate::fencing::{Fence, Fenced, Refused};
pub use crate::leadership::Leadership;
pub use crate::observer::{LeaderView, Observer};
pub use crate::term::Term;
