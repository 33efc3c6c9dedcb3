//! Allocations of one operation, counted in a process of their own.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use crate::Result;

/// Allocations of one operation, by what did it.
pub(crate) type Counts = BTreeMap<String, f64>;

/// What to count for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    Pick,
    Rpc,
}

impl Subject {
    pub(crate) const ALL: [Self; 2] = [Self::Pick, Self::Rpc];

    /// What the program that counts is told.
    pub(crate) fn word(self) -> &'static str {
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
