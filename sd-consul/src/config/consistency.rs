//! How up to date answers must be.

use serde::Deserialize;

/// How up to date an answer must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Consistency {
    /// The server that leads answers the first read of a feed, and everything is read again every few minutes. The changes between
    /// come as the agent gets them: mostly as a stream from any server, which stands still while that one is cut off.
    #[default]
    Default,
    /// Any server answers, also one that is cut off from the others. [`with_max_stale`](crate::ConsulConfig::with_max_stale) bounds its
    /// age.
    Stale,
    /// The server that leads answers everything, and asks the others first whether it still does.
    Consistent,
    /// The agent answers from its own cache. [`with_max_stale`](crate::ConsulConfig::with_max_stale) bounds its age.
    Cached,
}
