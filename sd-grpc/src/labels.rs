//! Which labels the durations of calls have.

use serde::Deserialize;

/// How many values the labels of [`CALL_DURATION`](crate::instrument::CALL_DURATION) may take in one channel. A recorder keeps at most
/// 17 × (`methods` + 1) × (`endpoints` + 1) histograms for it, for as long as the process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct CallLabels {
    /// How many methods have a value of their own, in the order of their first calls. The others have `_OTHER`. 0 leaves the label
    /// out. Default 100.
    pub methods: usize,
    /// The same for addresses of endpoints. Addresses that are gone count, too. Default 0.
    pub endpoints: usize,
}

impl CallLabels {
    /// No labels but the service and the status.
    pub fn none() -> Self {
        Self {
            methods: 0,
            endpoints: 0,
        }
    }

    /// Sets [`methods`](Self::methods).
    #[must_use]
    pub fn with_methods(mut self, most: usize) -> Self {
        self.methods = most;
        self
    }

    /// Sets [`endpoints`](Self::endpoints).
    #[must_use]
    pub fn with_endpoints(mut self, most: usize) -> Self {
        self.endpoints = most;
        self
    }
}

impl Default for CallLabels {
    fn default() -> Self {
        Self::none().with_methods(100)
    }
}
