//! Where a child tells what it sees.

use std::io::{self, Write};
use std::sync::Arc;

use crate::history::{At, Event, Line};

/// Writes lines to standard output. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Journal {
    node: Arc<str>,
}

impl Journal {
    pub(super) fn new(node: &str) -> Self {
        Self { node: node.into() }
    }

    pub(super) fn tell(&self, event: Event) {
        self.tell_at(At::now(), event);
    }

    /// Tells at once what is known of an earlier moment.
    pub(super) fn tell_at(&self, at: At, event: Event) {
        let node = self.node.to_string();
        let told = serde_json::to_vec(&Line { at, node, event })
            .map_err(io::Error::from)
            .and_then(|mut line| {
                line.push(b'\n');
                // In one piece and at once, so that what was told survives kill -9.
                let mut out = io::stdout().lock();
                out.write_all(&line)?;
                out.flush()
            });
        if let Err(error) = told {
            eprintln!("cannot write to the history: {error}");
            std::process::abort();
        }
    }
}
