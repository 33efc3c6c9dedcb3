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

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_of_the_limit_as_it_is_and_at_least_one() {
        let (all, limit) = share_of(1.0).unwrap();
        assert_eq!(all as u64, limit);
        let (half, _) = share_of(0.5).unwrap();
        assert_eq!(half, all / 2);
        assert_eq!(share_of(0.0).unwrap().0, 1);
    }
}
