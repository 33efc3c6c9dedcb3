//! A file as it was read, and in which of its lines a key stands: what is wrong with a value is often found out long after that.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sd_core::Printable;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

use super::ConfigError;
use super::file;

/// What a file held when it was read. It may hold secrets.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Text {
    path: PathBuf,
    contents: Arc<str>,
    language: Language,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Language {
    Toml,
    Yaml,
}

/// One step on the way to a key, which is the last one.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step<'a> {
    Key(&'a str),
    /// The value at this place of a list, counted from 0.
    Item(usize),
}

impl Text {
    /// Reads a file. Blocks, but not for a pipe or a device.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub(crate) fn read(path: &Path) -> Result<Self, ConfigError> {
        let wrong = |why: String| ConfigError::new(format!("{}: {why}", shown(path)));
        let text = file::text(path).map_err(|error| wrong(format!("cannot be read: {error}")))?;
        let language = match path.extension().and_then(|extension| extension.to_str()) {
            Some("toml") => Language::Toml,
            Some("yaml" | "yml") => Language::Yaml,
            _ => return Err(wrong("is neither .toml nor .yaml or .yml".to_owned())),
        };
        Ok(Self {
            path: path.to_owned(),
            contents: text.into(),
            language,
        })
    }

    /// What is in it.
    ///
    /// # Errors
    /// The line, and what is wrong there, without what it holds.
    pub(crate) fn parse<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        let parsed = match self.language {
            Language::Toml => file::parse_toml(&self.contents),
            Language::Yaml => file::parse_yaml(&self.contents),
        };
        parsed.map_err(|why| ConfigError::new(format!("{}: {why}", shown(&self.path))))
    }

    /// What is wrong with what stands at `steps`: file, line, and `why`.
    pub(crate) fn wrong(&self, steps: &[Step<'_>], why: impl fmt::Display) -> ConfigError {
        let path = shown(&self.path);
        ConfigError::new(match self.line_of(steps) {
            Some(line) => format!("{path}: line {line}: {why}"),
            None => format!("{path}: {why}"),
        })
    }

    /// The line of the key that is the last of `steps`, counted from 1. Reads until there and fails: both languages tell where they are
    /// when what reads them fails.
    fn line_of(&self, steps: &[Step<'_>]) -> Option<usize> {
        let mut found = false;
        let at = At {
            steps,
            found: &mut found,
        };
        let line = match self.language {
            Language::Toml => {
                let reader = toml::de::Deserializer::parse(&self.contents).ok()?;
                let span = at.deserialize(reader).err()?.span()?;
                self.contents.get(..span.start)?.split('\n').count()
            }
            Language::Yaml => {
                let reader = serde_norway::Deserializer::from_str(&self.contents);
                at.deserialize(reader).err()?.location()?.line()
            }
        };
        found.then_some(line)
    }
}

fn shown(path: &Path) -> String {
    Printable(&path.display().to_string()).to_string()
}

/// Fails at the last step.
struct At<'a> {
    steps: &'a [Step<'a>],
    found: &'a mut bool,
}

impl<'de> DeserializeSeed<'de> for At<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for At<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table or a list")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some((Step::Key(wanted), rest)) = self.steps.split_first() else {
            return Ok(());
        };
        loop {
            let key = Key {
                wanted,
                found: rest.is_empty().then_some(&mut *self.found),
            };
            match map.next_key_seed(key)? {
                None => return Ok(()),
                Some(true) => {
                    return map.next_value_seed(At {
                        steps: rest,
                        found: self.found,
                    });
                }
                Some(false) => drop(map.next_value::<IgnoredAny>()?),
            }
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Some((Step::Item(wanted), rest)) = self.steps.split_first() else {
            return Ok(());
        };
        for _ in 0..*wanted {
            if list.next_element::<IgnoredAny>()?.is_none() {
                return Ok(());
            }
        }
        let item = At {
            steps: rest,
            found: self.found,
        };
        list.next_element_seed(item).map(drop)
    }
}

/// Whether a key is the wanted one. Fails there if it is the last step.
struct Key<'a> {
    wanted: &'a str,
    found: Option<&'a mut bool>,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<bool, E> {
        match self.found {
            Some(found) if key == self.wanted => {
                *found = true;
                Err(E::custom("here"))
            }
            _ => Ok(key == self.wanted),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn line_of(extension: &str, text: &str, steps: &[Step<'_>]) -> Option<usize> {
        let file = tempfile::Builder::new()
            .suffix(extension)
            .tempfile()
            .unwrap();
        fs::write(file.path(), text).unwrap();
        Text::read(file.path()).unwrap().line_of(steps)
    }

    #[test]
    fn a_key_is_found_in_its_line_however_it_is_written() {
        use Step::{Item, Key};
        let body = [Key("limits"), Key("body")];
        let name = [Key("token"), Item(1), Key("name")];
        for (extension, text, steps, line) in [
            (
                ".toml",
                "zone = 'a'\n\n[limits]\n# so many\nbody = 1",
                &body[..],
                Some(5),
            ),
            (".toml", "zone = 'a'\nlimits.body = 1", &body, Some(2)),
            (
                ".toml",
                "\nlimits = { streams = 1, body = 1 }",
                &body,
                Some(2),
            ),
            (
                ".toml",
                "[[token]]\nname = 'a'\n[[token]]\nname = 'b'",
                &name,
                Some(4),
            ),
            (".toml", "[limits]\nstreams = 1", &body, None),
            (".toml", "limits = [1]", &body, None),
            (
                ".yaml",
                "zone: a\nlimits:\n  # so many\n  body: 1",
                &body,
                Some(4),
            ),
            (
                ".yaml",
                "---\nlimits: {streams: 1,\n  body: 1}",
                &body,
                Some(3),
            ),
            (
                ".yaml",
                "token:\n- name: a\n- token: t\n  name: b",
                &name,
                Some(4),
            ),
            (".yaml", "{\"limits\":\n{\"body\": 1}}", &body, Some(2)),
            (".yaml", "limits: 1", &body, None),
            (".yaml", "", &body, None),
        ] {
            assert_eq!(line_of(extension, text, steps), line, "{text}");
        }
    }
}
