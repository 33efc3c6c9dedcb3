//! How up to date answers must be.

use serde::Deserialize;

/// How up to date an answer must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Consistency {
    /// Consul's leader answers the first read of a feed, after its followers have confirmed that it still leads, and everything is read
    /// again every few minutes. The changes in between arrive as the agent receives them: mostly as a stream from one of the servers, which stalls while that server is cut off.
    #[default]
    Default,
    /// Any server answers, even one that is cut off from the others. [`with_max_stale`](crate::ConsulConfig::with_max_stale) bounds its
    /// age.
    Stale,
    /// Consul's leader answers everything, after its followers have confirmed that it still leads.
    Consistent,
    /// The agent answers from its cache. [`with_max_stale`](crate::ConsulConfig::with_max_stale) bounds its age.
    Cached,
}
