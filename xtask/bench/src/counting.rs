//! The program that counts allocations, started by a bench that wants to know them.

use std::io::Write as _;

use crate::allocations::Subject;
use crate::{Result, pick, rpc};

/// What the program that counts does.
pub(crate) fn main(counted: fn() -> usize) -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let subject = arguments.next().unwrap_or_default();
    let subject = Subject::ALL
        .into_iter()
        .find(|known| known.word() == subject)
        .ok_or("only `cargo xtask bench` starts this program, and reads its output")?;
    let counts = match subject {
        Subject::Pick => pick::count(counted),
        Subject::Rpc => rpc::count(counted, &arguments.collect::<Vec<_>>())?,
    };
    let mut out = std::io::stdout().lock();
    for (what, count) in counts {
        writeln!(out, "{count}\t{what}")?;
    }
    Ok(())
}
