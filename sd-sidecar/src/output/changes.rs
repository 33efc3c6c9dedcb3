//! The JSON of commands that run until interrupted: an object for each change, with its time.

use serde::Serialize;

use crate::failure::Failure;
use crate::output::Output;
use crate::output::time::now;

/// What can be watched.
pub(crate) trait Watched: Serialize {
    /// Since when it cannot be trusted. As the time of day it is never twice the same.
    fn since(&mut self) -> &mut Option<String>;
}

/// What was printed last.
#[derive(Debug, Default)]
pub(crate) struct JsonChanges(Option<String>);

#[derive(Serialize)]
struct Timed<T> {
    time: String,
    #[serde(flatten)]
    value: T,
}

impl JsonChanges {
    /// Prints a value that says something else than the one before.
    pub(crate) fn print(&mut self, output: Output, mut value: impl Watched) -> Result<(), Failure> {
        if !self.is_new(&mut value)? {
            return Ok(());
        }
        let time = now();
        output.json(&Timed { time, value })
    }

    fn is_new(&mut self, value: &mut impl Watched) -> Result<bool, Failure> {
        let since = value.since().take();
        let text = serde_json::to_string(value)
            .map_err(|error| Failure::new(format!("cannot write JSON: {error}")))?;
        *value.since() = since;
        let before = self.0.replace(text);
        Ok(before != self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Value(u8, Option<String>);

    impl Watched for Value {
        fn since(&mut self) -> &mut Option<String> {
            &mut self.1
        }
    }

    #[test]
    fn what_was_said_last_is_not_said_again() {
        let mut changes = JsonChanges::default();
        for (value, since, is_new) in [
            (1, "a", true),
            (1, "b", false),
            (2, "b", true),
            (1, "b", true),
        ] {
            let mut value = Value(value, Some(since.to_owned()));
            assert_eq!(changes.is_new(&mut value).unwrap(), is_new);
            assert_eq!(value.1.as_deref(), Some(since));
        }
    }
}
