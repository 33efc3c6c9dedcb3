//! How many of the process's file descriptors the connections of a channel may take.

/// So many connections take no more than `share` of the descriptors that the process may have, and how many these are. At least one.
/// `None` where there is no such limit.
#[cfg(unix)]
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of a limit that is far below 2^52"
)]
pub(crate) fn share_of(share: f64) -> Option<(usize, u64)> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current?;
    Some((((limit as f64 * share) as usize).max(1), limit))
}

/// The same where processes have no such limit.
#[cfg(not(unix))]
pub(crate) fn share_of(_share: f64) -> Option<(usize, u64)> {
    None
}

/// What a connection is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// For an endpoint that has none.
    First,
    /// For one whose connections are full.
    Extra,
    /// For one that moved: its old connection ends when this one is there.
    Moved,
}

impl Purpose {
    /// How many connections there may be with this one, of a channel that may have `most`.
    pub(crate) fn bound(self, most: usize) -> usize {
        match self {
            Self::First => most,
            // The rest is kept for endpoints that have none.
            Self::Extra => most.saturating_sub((most / 10).max(1)),
            // Otherwise the old connection would keep its own successor out for ever.
            Self::Moved => most.saturating_add(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_share_is_of_the_limit_as_it_is_and_at_least_one() {
        let (all, limit) = share_of(1.0).unwrap();
        assert_eq!(all as u64, limit);
        let (half, _) = share_of(0.5).unwrap();
        assert_eq!(half, all / 2);
        assert_eq!(share_of(0.0).unwrap().0, 1);
    }

    #[test]
    fn endpoints_without_a_connection_come_before_extra_ones() {
        for (most, extra) in [(1, 0), (2, 1), (10, 9), (500, 450)] {
            assert_eq!(Purpose::Extra.bound(most), extra);
            assert_eq!(Purpose::First.bound(most), most);
            assert_eq!(Purpose::Moved.bound(most), most + 1);
        }
    }
}
