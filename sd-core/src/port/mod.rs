//! The ports: the traits that a backend implements, and the types in them. For authors of backends, and of libraries beside a
//! [`Registry`](crate::Registry), such as elections.

pub(crate) mod backend;
pub(crate) mod elector;
pub(crate) mod instancer;
pub(crate) mod operator;
pub(crate) mod registrar;
pub(crate) mod safety;

pub use async_trait::async_trait;

pub use self::backend::Backend;
pub use self::elector::{
    AnyElector, CandidateId, Confirmation, CountsFrom, Elector, Entry, Leader, LeaderFeed,
    LeaderWatcher, Predecessor, Standing, StrictElector, Ticket, check_value,
};
pub use self::instancer::{Feed, Instancer, ServiceList, ServicesWatcher, Watcher};
pub use self::operator::{Operator, check_run, no_such_record};
pub use self::registrar::{Attempt, Limits, Liveness, Registrar, Registration, Renewed};
pub use self::safety::{Guarantee, Safety, SafetyNote};
pub use crate::registry::Closing;
