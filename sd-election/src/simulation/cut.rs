//! How a node is cut off from the server.

/// What of a node's messages is lost.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cut {
    pub(super) requests: bool,
    pub(super) replies: bool,
}
