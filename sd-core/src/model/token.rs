//! The fencing token of a term, which a protected resource compares so that a former leader cannot write.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::printable::Printable;

/// Identifies one term of one election. A later term has a greater token.
///
/// Tokens are comparable only within one `domain`, which names the history that the number comes from, for example an etcd
/// cluster. A registry that was restored from a backup may continue from an older number. Its tokens must not look merely late.
/// Across domains `<` and `>` are both false, so a store must refuse unless `token >= highest`. A store that refuses only if
/// `token < highest` accepts tokens of other domains. `Fence` of `sd-election` compares correctly.
///
/// A token alone protects nothing. The store that takes the leader's writes must keep the greatest token that it has seen, and
/// refuse lower ones.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FencingToken {
    domain: Arc<str>,
    value: u64,
}

impl FencingToken {
    /// The token `value` of the history `domain`.
    pub fn new(domain: impl Into<Arc<str>>, value: u64) -> Self {
        Self {
            domain: domain.into(),
            value,
        }
    }

    /// The history that the number comes from.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The number. Greater for each later term of the domain.
    pub fn value(&self) -> u64 {
        self.value
    }
}

impl PartialOrd for FencingToken {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self.domain == other.domain).then(|| self.value.cmp(&other.value))
    }
}

impl fmt::Display for FencingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.value)
    }
}

impl fmt::Debug for FencingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.value, Printable(&self.domain))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_ordered_within_a_domain_and_not_across() {
        let [old, new] = [7, 9].map(|value| FencingToken::new("a", value));
        assert!(old < new);
        assert!(new > old);
        let restored = FencingToken::new("b", 3);
        assert_eq!(old.partial_cmp(&restored), None);
        assert_ne!(old, FencingToken::new("b", 7));
    }
}
