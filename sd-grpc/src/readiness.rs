//! How much of a service is to be ready before the first call.

/// What [`BalancedChannel::wait_until`](crate::BalancedChannel::wait_until) waits for.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Readiness {
    /// At least so many endpoints are ready for calls.
    Endpoints(usize),
    /// At least this share of the endpoints that want calls, from 0 to 1, and one of them, is ready for calls.
    Share(f64),
}

impl Readiness {
    pub(crate) fn is_valid(self) -> bool {
        match self {
            Self::Endpoints(_) => true,
            Self::Share(share) => (0.0..=1.0).contains(&share),
        }
    }

    /// Whether `ready` of those that are `wanted` are enough.
    #[expect(
        clippy::cast_precision_loss,
        reason = "sets stay far below 2^52 endpoints"
    )]
    pub(crate) fn is_met(self, ready: usize, wanted: usize) -> bool {
        match self {
            Self::Endpoints(count) => ready >= count,
            Self::Share(share) => ready > 0 && ready as f64 >= share * wanted as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_of_what_wants_calls_and_at_least_one() {
        assert!(!Readiness::Share(0.0).is_met(0, 0));
        assert!(Readiness::Share(0.0).is_met(1, 100));
        assert!(!Readiness::Share(0.8).is_met(7, 9));
        assert!(Readiness::Share(0.8).is_met(8, 9));
        assert!(Readiness::Share(1.0).is_met(3, 3));
        assert!(Readiness::Endpoints(2).is_met(2, 100));
        assert!(!Readiness::Endpoints(2).is_met(1, 1));
        assert!(!Readiness::Share(f64::NAN).is_valid() && !Readiness::Share(1.1).is_valid());
    }
}
