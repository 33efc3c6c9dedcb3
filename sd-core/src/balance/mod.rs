//! Which endpoints a client uses, and which of them gets the next call.
//!
//! ```text
//! Snapshot ──Selection::to_connect──► whom to connect ──connected──► Selector: lowest tier, own zone ──► Policy ──► Picker ──► call
//! ```
//!
//! A [`Selection`] says what to connect and what to prefer. A [`Policy`] builds a [`Picker`] for each set, which then picks from any
//! thread without locking or allocating, by what it is told of the call and by the [`Load`] that the policy keeps of each endpoint.
//! [`RoundRobin`] and [`LeastRequest`] are policies. The owners of connections, [`EndpointCache`](crate::EndpointCache) here and
//! `BalancedChannel` in `sd-grpc`, do the same with both. Owners use a [`Selector`], and so can the tests of a policy:
//!
//! ```
//! use std::sync::Arc;
//! use sd_core::Instance;
//! use sd_core::balance::{CallInfo, Listed, RoundRobin, Selector};
//!
//! # fn main() -> sd_core::Result<()> {
//! let mut selector = Selector::new(Arc::new(RoundRobin::new()), None);
//! let instance = Arc::new(Instance::new("greeter", "10.0.0.7:50051")?);
//! let load = selector.new_load(&instance);
//! selector.replace([Listed { instance, load, usable: true }]);
//! let choice = selector.choose();
//! assert_eq!(choice.pick(&CallInfo::new(), |_| false, Some), Some(0));
//! # Ok(())
//! # }
//! ```

mod choice;
mod least_request;
mod load;
mod policy;
mod rank;
mod rotation;
mod round_robin;
mod selection;
mod selector;
mod table;
mod weighted;

pub use crate::balance::choice::Choice;
pub use crate::balance::least_request::LeastRequest;
pub use crate::balance::load::{Load, LoadGuard, Outcome};
pub use crate::balance::policy::{CallInfo, Candidate, Candidates, Picker, Policy};
pub use crate::balance::round_robin::RoundRobin;
pub use crate::balance::selection::{Selection, Subset};
pub use crate::balance::selector::{Listed, Selector};
