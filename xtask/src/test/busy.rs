//! The test programs that keep the cores busy, while most of them wait.

use anyhow::{Result, bail};

use crate::built::Executable;

/// Package and test. No two of these run at the same time, so that what waits beside them is woken in time.
const BUSY: [(&str, &str); 2] = [("chaos", "smoke"), ("sd-election", "simulation")];

pub(crate) fn is_busy(executable: &Executable) -> bool {
    let test = executable.test.as_deref();
    BUSY.iter()
        .any(|(package, busy)| executable.package == *package && test == Some(busy))
}

/// # Errors
/// One that is named here is there no more.
pub(crate) fn check(all: &[Executable]) -> Result<()> {
    let is_there = |(package, test): (&str, &str)| {
        let mut named = all.iter().filter(|one| one.package == package);
        named.any(|one| one.test.as_deref() == Some(test))
    };
    if let Some((package, test)) = BUSY.into_iter().find(|busy| !is_there(*busy)) {
        bail!("{package} has no test {test}: correct BUSY in xtask/src/test/busy.rs");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_those_that_are_named_and_all_of_these_must_be_there() {
        let named = |(package, test)| Executable::named(package, Some(test));
        let all: Vec<Executable> = BUSY.into_iter().map(named).collect();
        assert!(all.iter().all(is_busy));
        assert!(!is_busy(&Executable::named("chaos", None)));
        assert!(!is_busy(&Executable::named("sd-election", Some("smoke"))));
        check(&all).unwrap();
        let error = check(&all[1..]).unwrap_err().to_string();
        assert!(error.contains("chaos has no test smoke"), "{error}");
    }
}
