//! Whose elections are joined.

use serde::Deserialize;

/// What candidates are called and what they show, so that programs of another project take part. All candidates of one election must have
/// the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ElectionFormat {
    /// As Curator's `LeaderLatch` has it.
    #[default]
    Curator,
    /// As reception's `Elector` has it: a service of that name, whose oldest instance leads. A leader of reception's has no deadline: it
    /// may believe that it leads after its session has ended and another one leads.
    Reception,
}
