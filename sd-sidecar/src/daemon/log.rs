//! The agent's log: one line on stderr for each event, with nothing unescaped in it.

use std::fmt::Write as _;
use std::io::{self, Write};

use sd_core::{Printable, brief};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

use super::config::{ConfigError, LogConfig};

/// Changes what is logged.
#[derive(Clone, Debug)]
pub struct LogControl {
    filter: Option<reload::Handle<EnvFilter, Registry>>,
}

impl LogControl {
    /// Starts the log of this process. If it has one already, that one stays.
    ///
    /// # Errors
    /// A filter that is none.
    pub fn start(config: &LogConfig) -> Result<Self, ConfigError> {
        let (filter, handle) = reload::Layer::new(filter_of(&config.level)?);
        let registry = tracing_subscriber::registry().with(filter);
        let lines = fmt::layer().with_ansi(false);
        let started = if config.json {
            let lines = lines.json().flatten_event(true).with_current_span(false);
            registry
                .with(lines.with_writer(|| Lines {
                    to: io::stderr(),
                    json: true,
                }))
                .try_init()
        } else {
            registry
                .with(lines.with_writer(|| Lines {
                    to: io::stderr(),
                    json: false,
                }))
                .try_init()
        };
        Ok(Self {
            filter: started.ok().map(|()| handle),
        })
    }

    /// Logs what this filter says from now on.
    pub fn change(&self, filter: Filter) {
        if let Some(handle) = &self.filter {
            // Fails only if the log has ended.
            let _ = handle.reload(filter.0);
        }
    }
}

/// What is to be logged.
#[derive(Debug)]
pub struct Filter(EnvFilter);

impl Filter {
    /// What `level` says, a value of the key `log.level`.
    ///
    /// # Errors
    /// A filter that is none.
    pub fn new(level: &str) -> Result<Self, ConfigError> {
        filter_of(level).map(Self)
    }
}

/// What a filter says. A word alone is a level: `EnvFilter` would take any other one for the name of a crate, and log nothing else.
pub(crate) fn filter(level: &str) -> Result<EnvFilter, String> {
    let words = level.split(',');
    let mut words = words.filter(|word| !word.contains(['=', '[']));
    if let Some(word) = words.find(|word| word.parse::<LevelFilter>().is_err()) {
        let shown = Printable(&brief(word)).to_string();
        return Err(format!(
            "{shown:?} is no level: expected error, warn, info, debug, trace or off, or a list as info,sd_core=debug"
        ));
    }
    EnvFilter::try_new(level).map_err(|error| Printable(&brief(error)).to_string())
}

fn filter_of(level: &str) -> Result<EnvFilter, ConfigError> {
    filter(level).map_err(|why| ConfigError::new(format!("log.level: {why}")))
}

/// Takes one event at each call, and writes it on one line. That stderr cannot be written to, as on a full disk, changes nothing else.
struct Lines<W> {
    to: W,
    json: bool,
}

impl<W: Write> Write for Lines<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let text = text.trim_end();
        let mut line = String::with_capacity(text.len() + 1);
        for c in text.chars() {
            // Writing to a string cannot fail.
            if Printable::is_printable(c) {
                line.push(c);
            } else if self.json {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(line, "\\u{unit:04x}");
                }
            } else {
                let _ = write!(line, "{}", c.escape_default());
            }
        }
        line.push('\n');
        // At once, so that lines of several threads do not mix.
        let _ = self.to.write_all(line.as_bytes());
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let _ = self.to.flush();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(json: bool, event: &str) -> String {
        let mut to = Vec::new();
        Lines { to: &mut to, json }
            .write_all(event.as_bytes())
            .unwrap();
        String::from_utf8(to).unwrap()
    }

    #[test]
    fn a_word_that_is_no_level_is_refused() {
        for level in [
            "info",
            "WARN",
            "off",
            "info,sd_core=debug",
            "info,[span]=trace",
        ] {
            assert!(filter(level).is_ok(), "{level}");
        }
        for level in [
            "loud",
            "info,loud",
            "sd_core",
            "info,sd_core=loud",
            "\u{1b}[2J",
        ] {
            let why = filter(level).unwrap_err();
            assert!(!why.is_empty() && !why.contains('\u{1b}'), "{level}: {why}");
        }
        assert!(filter("loud").unwrap_err().contains("error, warn, info"));
    }

    #[test]
    fn an_event_is_one_line_whatever_a_caller_puts_into_it() {
        let event = "INFO access: path=/\u{1b}[2J\nERROR forged \u{202e}\n";
        assert_eq!(
            written(false, event),
            "INFO access: path=/\\u{1b}[2J\\nERROR forged \\u{202e}\n"
        );
        let json = written(true, "{\"path\":\"\u{202e}\u{e0041}\"}\n");
        assert_eq!(json.lines().count(), 1);
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["path"], "\u{202e}\u{e0041}");
        assert!(json.is_ascii());
    }
}
