//! The client of the local agent, beside a server that does what a test says: also what no agent should do.

mod asking;
mod fake_agent;
mod registering;
mod watching;
