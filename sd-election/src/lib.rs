#![doc = include_str!("../README.md")]

mod candidate;
mod config;
mod end_reason;
mod event;
mod leadership;
mod term;

mod fencing;
mod leader_instancer;
mod observer;

mod campaign;
mod cancellation;
mod election_thread;

mod flaw;
pub mod instrument;
#[cfg(feature = "simulation")]
pub mod simulation;

pub use crate::candidate::{Candidate, CandidateBuilder};
pub use crate::config::{DEFAULT_CLOCK_ERROR, DEFAULT_TTL, StepDown, TermConfig};
pub use crate::end_reason::EndReason;
pub use crate::event::{CandidatePhase, CandidateState, ElectionEvent};
pub use crate::fencing::{Fence, Fenced, Refused};
pub use crate::leader_instancer::LeaderInstancer;
pub use crate::leadership::Leadership;
pub use crate::observer::{LeaderView, Observer};
pub use crate::term::Term;
