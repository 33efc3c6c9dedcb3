//! Allocations of one operation, counted in a process of their own.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::{Result, pick, rpc};

/// Allocations of one operation, by what did it.
pub(crate) type Counts = BTreeMap<String, f64>;

/// What to count for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    Pick,
    Rpc,
}

impl Subject {
    const ALL: [Self; 2] = [Self::Pick, Self::Rpc];

    fn word(self) -> &'static str {
        match self {
            Self::Pick => "pick",
            Self::Rpc => "rpc",
        }
    }
}

/// Starts the program that counts, which lies beside this one.
pub(crate) fn count(subject: Subject, arguments: &[String]) -> Result<Counts> {
    let program = std::env::current_exe()?.with_file_name("count-allocations");
    let output = Command::new(&program)
        .arg(subject.word())
        .args(arguments)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| {
            format!(
                "{}: {error}; `cargo xtask bench` builds it",
                program.display()
            )
        })?;
    if !output.status.success() {
        return Err(format!("{} failed: {}", program.display(), output.status).into());
    }
    String::from_utf8(output.stdout)?
        .lines()
        .map(|line| {
            let (count, what) = line.split_once('\t').ok_or("a line without a count")?;
            Ok((what.to_owned(), count.parse()?))
        })
        .collect()
}

/// What the program that counts does.
pub(crate) fn main(counted: fn() -> usize) -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let subject = arguments.next().unwrap_or_default();
    let subject = Subject::ALL
        .into_iter()
        .find(|known| known.word() == subject)
        .ok_or("bench starts this program and reads its output")?;
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
