//! What a step that did not fail has to say.

pub(crate) enum Outcome {
    Done,
    /// Why.
    Skipped(&'static str),
}
