//! The client of the local agent, beside a server that does what a test says: also what no agent should do.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed, in its helpers as well"
)]

mod asking;
mod fake_agent;
mod registering;
mod watching;
