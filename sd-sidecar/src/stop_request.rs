//! How what runs learns that it is to stop.

use tokio_util::sync::CancellationToken;

/// Whether we are to stop.
#[derive(Clone, Debug, Default)]
pub(crate) struct StopRequest {
    pub(crate) asked: CancellationToken,
    /// It was not quick enough: the command need not be given time any more.
    pub(crate) insisted: CancellationToken,
}
