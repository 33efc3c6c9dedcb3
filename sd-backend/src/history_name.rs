//! The name of the history that fencing tokens are of, for servers that tell none.

use sd_core::{Error, ErrorKind, Result};

/// How often it is read again because another candidate has just written it.
const MOST_ROUNDS: u32 = 3;

/// The name of the history that the tokens of a server's elections are of: random, written by the first candidate, and gone with the data.
/// Without it, the tokens of servers that lost their data would look like old ones.
///
/// `find` reads the name at this `place`, and `write` writes one unless there is one already.
///
/// # Errors
/// Those of `find` and `write`. `Unavailable` if the name goes again and again.
///
/// # Cancel safety
/// After a dropped call the name may be written: the next one finds it.
pub async fn history_name<N, F, W>(
    op: &'static str,
    place: &str,
    find: impl Fn() -> F,
    write: impl Fn(String) -> W,
) -> Result<N>
where
    F: Future<Output = Result<Option<N>>>,
    W: Future<Output = Result<()>>,
{
    for _ in 0..MOST_ROUNDS {
        if let Some(name) = find().await? {
            return Ok(name);
        }
        write(format!("{:016x}", fastrand::u64(..))).await?;
    }
    match find().await? {
        Some(name) => Ok(name),
        None => Err(Error::new(ErrorKind::Unavailable, op).because(format!(
            "{place} is missing after {MOST_ROUNDS} attempts to write it: look for a program that deletes it"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn the_first_name_that_is_written_stays_and_one_that_goes_again_is_told() {
        let stored = RefCell::new(None::<String>);
        let keeping = RefCell::new(true);
        let name = || {
            let find = async || Ok(stored.borrow().clone());
            let write = async |name| {
                if *keeping.borrow() {
                    stored.borrow_mut().get_or_insert(name);
                }
                Ok(())
            };
            let named = history_name("test", "/history", find, write);
            named.now_or_never().expect("nothing waits")
        };
        let first = name().unwrap();
        assert_eq!(first.len(), 16);
        assert_eq!(name().unwrap(), first);
        stored.take();
        assert_ne!(name().unwrap(), first);
        stored.take();
        keeping.replace(false);
        let error = name().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.report().to_string().contains("/history is missing"));
    }
}
