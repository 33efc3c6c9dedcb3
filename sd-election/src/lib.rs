#![doc = include_str!("../README.md")]

mod calls;
mod campaign;
mod candidate;
mod config;
mod event;
mod fenced;
mod flaw;
pub mod instrument;
mod leadership;
mod observer;
mod participation;
mod reason;
mod rules;
mod runtime;
#[cfg(feature = "simulation")]
pub mod simulation;
mod term;
mod validity;

pub use crate::candidate::{Candidate, CandidateBuilder, ElectionEvents};
pub use crate::config::{DEFAULT_CLOCK_ERROR, DEFAULT_TTL, StepDown, TermConfig};
pub use crate::event::{CandidatePhase, CandidateState, ElectionEvent};
pub use crate::fenced::{Fence, Fenced, Refused};
pub use crate::leadership::{Leadership, Term};
pub use crate::observer::{LeaderView, Observer};
pub use crate::reason::EndReason;
