//! Where values come from: flags before the environment before a file before defaults.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::ConfigError;
use super::file;
use super::keys::{KEYS, Key};
use super::text::{Step, Text};

/// All that a configuration is read from. It can be read again, after the file has changed.
#[derive(Clone)]
pub struct Sources {
    flags: BTreeMap<&'static str, Vec<String>>,
    environment: BTreeMap<&'static str, Vec<String>>,
    file: Option<PathBuf>,
}

/// Where one value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The command line.
    Flag,
    /// The environment.
    Environment,
    /// The file of `--config`.
    File,
    /// What counts if nothing is said.
    Default,
}

/// The text of each key that has a value.
#[derive(Clone, PartialEq, Eq)]
pub struct Values {
    texts: BTreeMap<&'static str, (Vec<String>, Source)>,
    /// The file that those of [`Source::File`] come from, as it was read.
    file: Option<Text>,
}

impl Sources {
    /// The flags of all keys, and `--config`.
    pub fn arguments(command: Command) -> Command {
        let config = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .help("The configuration, a file that ends in .toml, .yaml or .yml [env: SD_AGENT_CONFIG]");
        KEYS.iter().fold(command.arg(config), |command, key| {
            let mut notes = format!("env: {}", key.variable());
            if !key.default.is_empty() {
                notes = format!("default: {}] [{notes}", key.default);
            }
            let argument = Arg::new(key.name)
                .long(key.flag())
                .value_name(key.value)
                .help(format!("{} [{notes}]", capitalised(key.help)));
            let argument = match (key.list, key.is_switch()) {
                (true, _) => argument.action(ArgAction::Append),
                (false, true) => argument
                    .num_args(0..=1)
                    .require_equals(true)
                    .default_missing_value("true"),
                (false, false) => argument,
            };
            command.arg(argument)
        })
    }

    /// What a command line says, and `variable` of the environment.
    ///
    /// # Errors
    /// A variable that is no text.
    pub fn new(
        matches: &ArgMatches,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, ConfigError> {
        let mut flags = BTreeMap::new();
        let mut environment = BTreeMap::new();
        let text = |name: &str| -> Result<Option<String>, ConfigError> {
            let Some(value) = variable(name).filter(|value| !value.is_empty()) else {
                return Ok(None);
            };
            let text = value.into_string();
            text.map(Some)
                .map_err(|_| ConfigError::new(format!("{name}: is not UTF-8")))
        };
        for key in KEYS {
            if let Some(given) = matches.get_many::<String>(key.name) {
                let parts = given.flat_map(|text| parts(key, text));
                flags.insert(key.name, parts.collect());
            }
            if let Some(text) = text(&key.variable())? {
                environment.insert(key.name, parts(key, &text));
            }
        }
        let file = match matches.get_one::<PathBuf>("config") {
            Some(file) => Some(file.clone()),
            None => text("SD_AGENT_CONFIG")?.map(PathBuf::from),
        };
        Ok(Self {
            flags,
            environment,
            file,
        })
    }

    /// The file of `--config`.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Reads the file and puts it together with the rest. Blocks.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn read(&self) -> Result<Values, ConfigError> {
        let file = self.file.as_deref().map(Text::read).transpose()?;
        let mut in_file = match &file {
            Some(file) => file::texts_of(file)?,
            None => BTreeMap::new(),
        };
        let mut values = BTreeMap::new();
        for key in KEYS {
            let found = (self.flags.get(key.name).cloned())
                .map(|text| (text, Source::Flag))
                .or_else(|| Some((self.environment.get(key.name)?.clone(), Source::Environment)))
                .or_else(|| Some((in_file.remove(key.name)?, Source::File)))
                .or_else(|| {
                    (!key.default.is_empty())
                        .then(|| (vec![key.default.to_owned()], Source::Default))
                });
            if let Some(found) = found {
                values.insert(key.name, found);
            }
        }
        Ok(Values {
            texts: values,
            file,
        })
    }
}

/// The values that one text holds.
fn parts(key: &Key, text: &str) -> Vec<String> {
    if key.list {
        text.split(',').map(|part| part.trim().to_owned()).collect()
    } else {
        vec![text.to_owned()]
    }
}

// A flag may be a URL with a password.
impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources")
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.texts.keys()).finish()
    }
}

impl Values {
    /// The texts of a list.
    pub(super) fn list(&self, key: &str) -> &[String] {
        self.texts.get(key).map_or(&[], |(texts, _)| texts)
    }

    /// The text of a key. Empty text is none.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        let last = self.list(key).last()?;
        (!last.is_empty()).then_some(last.as_str())
    }

    /// Where a key's value comes from.
    pub fn source(&self, key: &str) -> Option<Source> {
        self.texts.get(key).map(|(_, source)| *source)
    }

    /// A value that cannot be used, with the place where it was written.
    pub(super) fn wrong(&self, key: &str, why: impl fmt::Display) -> ConfigError {
        let Some(known) = Key::named(key) else {
            return ConfigError::new(format!("{key}: {why}"));
        };
        match (self.source(key), &self.file) {
            (Some(Source::Flag), _) => ConfigError::new(format!("--{}: {why}", known.flag())),
            (Some(Source::Environment), _) => {
                ConfigError::new(format!("{}: {why}", known.variable()))
            }
            (Some(Source::File), Some(file)) => {
                let steps: Vec<_> = known.name.split('.').map(Step::Key).collect();
                file.wrong(&steps, format_args!("{}: {why}", known.name))
            }
            _ => ConfigError::new(format!("{}: {why}", known.name)),
        }
    }

    /// These values, with the newer ones of the keys that a reload takes.
    #[must_use]
    pub fn with_reloaded(&self, newer: &Self) -> Self {
        let mut values = self.clone();
        // What is wrong with these stands there.
        values.file.clone_from(&newer.file);
        for key in KEYS.iter().filter(|key| key.reload) {
            match newer.texts.get(key.name) {
                Some(value) => values.texts.insert(key.name, value.clone()),
                None => values.texts.remove(key.name),
            };
        }
        values
    }

    /// The keys whose values differ.
    pub fn changed(&self, newer: &Self) -> Vec<&'static Key> {
        let differs = |key: &&Key| self.list(key.name) != newer.list(key.name);
        KEYS.iter().filter(differs).collect()
    }
}

fn capitalised(help: &str) -> String {
    let mut chars = help.chars();
    let first = chars.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(chars).collect()
}
