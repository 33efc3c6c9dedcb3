//! How several servers belong together.

use serde::Deserialize;

/// How the servers behind the endpoints belong together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Topology {
    /// One server, or a primary and its replicas, all of them named: the one that says that it is the primary is used.
    #[default]
    Standalone,
    /// The endpoints are Sentinels, which know the primary.
    Sentinel,
    /// The endpoints are some of the nodes of a Redis Cluster, which know the others.
    Cluster,
}
