//! Faults that every backend must survive, on a server of the test's own: it is killed, frozen, emptied or cut off. Every
//! backend must tell its readers and owners the same meanwhile, and recover soon.
//!
//! Each case is a function for one test, and panics with what is wrong. Election cases are for strict and for best-effort electors alike. One
//! that needs strict elections says so, and is skipped where they are best effort, by the type of the elector.
#![expect(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "tests fail by panicking"
)]

mod electing;
mod operating;
mod registering;
mod stage;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

pub use self::electing::{
    a_candidate_that_was_cut_off_sees_what_happened_meanwhile,
    a_closed_backend_lets_go_of_the_connections_of_its_electors,
    an_election_goes_on_while_the_application_is_blocked,
    an_elector_outlives_the_runtime_that_it_was_first_used_on,
    killed_and_restarted_the_server_still_has_the_candidates,
    restarted_without_its_data_the_server_has_no_candidate,
};
pub use self::operating::{
    an_owner_that_is_killed_leaves_no_override_behind,
    killed_and_restarted_with_its_data_an_override_stays,
    restarted_without_its_data_a_record_is_back_without_its_override,
};
pub use self::registering::{
    a_registry_that_is_down_at_the_start_delays_no_caller,
    a_server_whose_answers_are_held_back_is_found_out, cut_off_for_less_than_the_ttl_nothing_flaps,
    dropping_everything_leaves_nothing,
    frozen_for_longer_than_the_ttl_the_registration_is_back_soon,
    in_a_black_hole_for_longer_than_the_ttl_the_registration_is_back_soon,
    killed_and_restarted_with_its_data_nothing_flaps,
    restarted_without_its_data_everything_is_there_again,
    while_everything_is_refused_nothing_is_given_up,
};
pub use self::stage::Stage;
use sd_core::{Backend, ServiceName};

use crate::{ServerProcess, ServerProgram};

/// A server of the test's own, its clients, and what other programs see there.
#[async_trait]
pub trait FaultFixture: Send + Sync {
    /// The program that is the server.
    type Program: ServerProgram;

    /// The server.
    fn server(&mut self) -> &mut ServerProcess<Self::Program>;

    /// Where the server listens.
    fn address(&self) -> SocketAddr;

    /// A new client of always the same store. It connects to `address`, the server's own or a proxy's. It gives up within
    /// seconds on a server that is silent.
    fn backend(&self, address: SocketAddr) -> Arc<dyn Backend>;

    /// How many instances of a service the server shows to other programs.
    async fn shown(&self, service: &ServiceName) -> usize;

    /// Everything that the server holds of a service (records, leases, checks), each part with the time when it was written.
    /// Like [`shown`](Self::shown) it leaves no connection behind.
    async fn stored(&self, service: &ServiceName) -> Vec<String>;

    /// A short time-to-live. Default 3 s.
    fn ttl(&self) -> Duration {
        Duration::from_secs(3)
    }

    /// How soon a registration with this time-to-live must be back once the server answers. The contract is a third of it plus
    /// 2 s. Default: that plus 1 s for a busy machine.
    fn back_within(&self) -> Duration {
        self.ttl() / 3 + Duration::from_secs(3)
    }
}
