//! The processes that take part, by number.

/// A process: the server, a candidate's, or an observer's. One that was killed and started again is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Node(pub(super) usize);

impl Node {
    pub(super) const SERVER: Self = Self(0);
}
