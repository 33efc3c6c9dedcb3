//! What `--check` prints.

use std::fmt;

use sd_backend::RegistryUrl;
use sd_core::Printable;

use super::keys::KEYS;
use super::sources::{Source, Values};
use super::state_file;

/// The value of each key and where it comes from, and no secret.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// The values.
    pub values: &'a Values,
    /// The address of this host where none is named, and how it was found.
    pub advertised: Option<(&'a str, &'a str)>,
}

impl Shown<'_> {
    /// What counts for a key that has no value, and where it comes from.
    fn found(&self, key: &str) -> Option<(String, &str)> {
        match key {
            "state" => state_file().map(|path| (path.display().to_string(), "systemd")),
            "advertise" => self.advertised.map(|(host, from)| (host.to_owned(), from)),
            _ => None,
        }
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for key in KEYS {
            let said = self.values.source(key.name);
            let said = said.map(|source| (value(self.values, key.name), told(source)));
            let Some((value, from)) = said.or_else(|| self.found(key.name)) else {
                continue;
            };
            writeln!(f, "{} = {} ({from})", key.name, Printable(&value))?;
        }
        Ok(())
    }
}

fn value(values: &Values, key: &str) -> String {
    let texts = values.list(key).iter().map(|text| {
        if key == "registry" {
            RegistryUrl::parse(text).map_or_else(|_| "***".to_owned(), |url| url.to_string())
        } else {
            text.clone()
        }
    });
    texts.collect::<Vec<_>>().join(", ")
}

fn told(source: Source) -> &'static str {
    match source {
        Source::Flag => "command line",
        Source::Environment => "environment",
        Source::File => "file",
        Source::Default => "default",
    }
}
