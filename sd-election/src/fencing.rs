//! Refusing the writes of earlier leaders.
//!
//! A leader can be paused between asking whether it leads and writing, and wake when another candidate leads. No lease prevents that.
//! Only the store can, by comparing tokens.

use std::fmt;
use std::sync::Mutex;

use sd_core::FencingToken;
use sd_core::sync::lock;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::flaw::{Flaw, flawed};

/// Why a write was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// A later term has written.
    #[error(
        "the token {token} is outdated, the later term {highest} has already written: stop this leader's work"
    )]
    Stale {
        /// The writer's.
        token: FencingToken,
        /// The greatest that was admitted.
        highest: FencingToken,
    },
    /// The writer's token cannot be compared: the registry was restored from a backup, or replaced. An operator must decide whether a
    /// leader from before that may be alive, and only then call [`Fence::reset`].
    #[error(
        "the token {token:?} belongs to another history than {highest:?}: if the registry was replaced and no earlier leader is alive, \
         reset the fence"
    )]
    OtherDomain {
        /// The writer's.
        token: FencingToken,
        /// The greatest that was admitted.
        highest: FencingToken,
    },
}

/// The greatest token that a store has admitted. Store the fence with the data, and change both in one step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fence {
    highest: Option<FencingToken>,
}

impl Fence {
    /// A fence that has admitted no token.
    pub const fn new() -> Self {
        Self { highest: None }
    }

    /// The greatest token that was admitted.
    pub fn highest(&self) -> Option<&FencingToken> {
        self.highest.as_ref()
    }

    /// Admits a write of the term `token`, unless a later term has written.
    ///
    /// # Errors
    /// Why the write is refused. The data must then stay unchanged.
    pub fn admit(&mut self, token: &FencingToken) -> Result<(), Refused> {
        if let Some(highest) = &self.highest {
            let (token, highest) = (token.clone(), highest.clone());
            match token.partial_cmp(&highest) {
                None => return Err(Refused::OtherDomain { token, highest }),
                Some(order) if order.is_lt() && !flawed(Flaw::FenceOpen) => {
                    return Err(Refused::Stale { token, highest });
                }
                Some(_) => {}
            }
        }
        self.highest = Some(token.clone());
        Ok(())
    }

    /// Forgets every token. Call it after the registry was replaced, and only if no leader from before that is alive.
    pub fn reset(&mut self) {
        self.highest = None;
    }
}

/// A value behind a fence, for data in this process.
///
/// ```
/// use sd_core::FencingToken;
/// use sd_election::Fenced;
///
/// let report = Fenced::new(String::new());
/// let [first, second] = [1, 2].map(|term| FencingToken::new("cluster", term));
/// report.write(&first, |report| report.push_str("one")).unwrap();
/// report.write(&second, |report| report.push_str(" two")).unwrap();
/// // The first leader was paused all the while and still believes that it leads.
/// assert!(report.write(&first, |report| report.clear()).is_err());
/// assert_eq!(report.read(String::clone), "one two");
/// ```
pub struct Fenced<T>(Mutex<(Fence, T)>);

impl<T> Fenced<T> {
    /// A value that no leader has written yet.
    pub const fn new(value: T) -> Self {
        Self(Mutex::new((Fence::new(), value)))
    }

    /// Changes the value on behalf of the term `token`, unless a later term has already changed it.
    ///
    /// # Errors
    /// Why the write is refused. `change` was then not called.
    pub fn write<R>(
        &self,
        token: &FencingToken,
        change: impl FnOnce(&mut T) -> R,
    ) -> Result<R, Refused> {
        // A change that panicked has been admitted, and left the value as far as it came.
        let mut held = lock(&self.0);
        let (fence, value) = &mut *held;
        fence.admit(token)?;
        Ok(change(value))
    }

    /// Reads the value.
    pub fn read<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        look(&lock(&self.0).1)
    }
}

impl<T> fmt::Debug for Fenced<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fenced")
            .field("highest", &lock(&self.0).0.highest)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_latest_term_writes_and_as_often_as_it_likes() {
        let mut fence = Fence::new();
        let [old, new] = [3, 8].map(|value| FencingToken::new("a", value));
        assert_eq!(fence.admit(&old), Ok(()));
        assert_eq!(fence.admit(&new), Ok(()));
        assert_eq!(fence.admit(&new), Ok(()));
        let refused = fence.admit(&old).unwrap_err();
        assert!(matches!(&refused, Refused::Stale { highest, .. } if *highest == new));
        assert_eq!(fence.highest(), Some(&new));
    }

    #[test]
    fn a_token_of_another_history_is_refused_until_an_operator_decides() {
        let mut fence = Fence::new();
        fence.admit(&FencingToken::new("a", 8)).unwrap();
        let restored = FencingToken::new("b", 9);
        assert!(matches!(
            fence.admit(&restored),
            Err(Refused::OtherDomain { .. })
        ));
        fence.reset();
        assert_eq!(fence.admit(&restored), Ok(()));
    }
}
