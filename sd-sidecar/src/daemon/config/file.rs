//! Configuration files: TOML or YAML, by their extension.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use sd_core::{Printable, brief};
use serde::de::DeserializeOwned;
use serde_path_to_error::Segment;

use super::ConfigError;
use super::keys::{KEYS, Key};
use super::text::{Step, Text};

/// Far more than any configuration has.
const MOST_BYTES: u64 = 4 * 1024 * 1024;

/// What is wrong with the language is told in the words of the library. What is wrong with a value is told without it, since it may be a
/// secret.
pub(super) fn parse_toml<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let at_line = |error: &toml::de::Error, why: &str| match error.span() {
        Some(span) => {
            let before = text.as_bytes().iter().take(span.start);
            let line = before.filter(|byte| **byte == b'\n').count() + 1;
            format!("line {line}: {why}")
        }
        None => why.to_owned(),
    };
    let of_text = |error: toml::de::Error| at_line(&error, &of_language(error.message()));
    text.parse::<toml::Table>().map_err(of_text)?;
    let reader = toml::de::Deserializer::parse(text).map_err(of_text)?;
    serde_path_to_error::deserialize(reader).map_err(|error| {
        let message = error.inner().message();
        at_line(error.inner(), &of_value(error.path(), message))
    })
}

/// As [`parse_toml`]. A key that is there twice is refused here as well.
pub(super) fn parse_yaml<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let at_line = |error: &serde_norway::Error, why: &str| match error.location() {
        // Some messages name it themselves.
        Some(location) if !why.contains(" at line ") => {
            format!("line {}: {why}", location.line())
        }
        _ => why.to_owned(),
    };
    let language = serde_norway::from_str::<serde_norway::Value>(text);
    language.map_err(|error| at_line(&error, &of_language(&error.to_string())))?;
    let reader = serde_norway::Deserializer::from_str(text);
    serde_path_to_error::deserialize(reader).map_err(|error| {
        // The library names the place at both ends.
        let message = error.inner().to_string();
        let message = message
            .strip_prefix(&format!("{}: ", error.path()))
            .unwrap_or(&message);
        let message = message
            .rsplit_once(" at line ")
            .map_or(message, |(begin, _)| begin);
        at_line(error.inner(), &of_value(error.path(), message))
    })
}

/// What is wrong with a value, and which one it is.
fn of_value(path: &serde_path_to_error::Path, message: &str) -> String {
    let mut known: Vec<_> = path.iter().collect();
    // What the file should not have may be a secret at the wrong place.
    if message.starts_with("unknown field") {
        known.pop();
    }
    let steps = known.into_iter().filter_map(|segment| match segment {
        Segment::Seq { index } => Some(format!("[{index}]")),
        Segment::Map { key } => Some(format!(".{key}")),
        Segment::Enum { .. } | Segment::Unknown => None,
    });
    let key: String = steps.collect();
    let key = key.trim_start_matches('.');
    let why = sd_backend::without_input(message);
    if key.is_empty() {
        return why;
    }
    format!("{}: {why}", Printable(&brief(key)))
}

/// One line, without what a library quotes of the text.
fn of_language(message: &str) -> String {
    let plain = message.lines().next().unwrap_or_default();
    Printable(&brief(plain)).to_string()
}

pub(super) fn text(path: &Path) -> std::io::Result<String> {
    let error = |why: &str| Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, why));
    // To open a pipe would wait for one that writes to it.
    if !std::fs::metadata(path)?.is_file() {
        return error("it is no file");
    }
    let mut text = String::new();
    let read = File::open(path)?
        .take(MOST_BYTES + 1)
        .read_to_string(&mut text)?;
    if u64::try_from(read).is_ok_and(|read| read > MOST_BYTES) {
        return error("it is longer than 4 MiB");
    }
    Ok(text)
}

/// One value of a file, whichever its language.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Node {
    Switch(bool),
    Number(i64),
    Text(String),
    List(Vec<Node>),
    Table(BTreeMap<String, Node>),
    Other(serde::de::IgnoredAny),
}

/// The texts of the keys in a configuration file.
pub(super) fn texts_of(file: &Text) -> Result<BTreeMap<&'static str, Vec<String>>, ConfigError> {
    let tables: Option<BTreeMap<String, Node>> = file.parse()?;
    let mut found = BTreeMap::new();
    flatten(file, &[], tables.unwrap_or_default(), &mut found)?;
    Ok(found)
}

/// Takes the keys of a table, which stands below the names `above`.
fn flatten(
    file: &Text,
    above: &[&str],
    table: BTreeMap<String, Node>,
    found: &mut BTreeMap<&'static str, Vec<String>>,
) -> Result<(), ConfigError> {
    for (part, node) in table {
        let names = [above, &[part.as_str()]].concat();
        let name = names.join(".");
        let wrong = |why: String| {
            let steps: Vec<_> = names.iter().map(|name| Step::Key(name)).collect();
            file.wrong(&steps, why)
        };
        if let Some(key) = Key::named(&name) {
            found.insert(key.name, texts(key, node).map_err(wrong)?);
        } else if let (Node::Table(table), true) = (node, is_table(&name)) {
            flatten(file, &names, table, found)?;
        } else {
            return Err(wrong(unknown(&name)));
        }
    }
    Ok(())
}

fn is_table(name: &str) -> bool {
    let is_inside = |key: &Key| {
        let rest = key.name.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with('.'))
    };
    KEYS.iter().any(is_inside)
}

fn texts(key: &Key, node: Node) -> Result<Vec<String>, String> {
    let scalar = |node| match node {
        Node::Switch(value) => Ok(value.to_string()),
        Node::Number(value) => Ok(value.to_string()),
        Node::Text(value) => Ok(value),
        _ => Err(format!("{}: expected {}", key.name, key.value)),
    };
    match node {
        Node::List(list) if key.list => list.into_iter().map(scalar).collect(),
        Node::List(_) => Err(format!("{}: is no list: one value is wanted", key.name)),
        // Octal numbers are written in both ways.
        Node::Number(mode) if key.value == "OCTAL" => Ok(vec![format!("{mode:o}")]),
        node => Ok(vec![scalar(node)?]),
    }
}

/// What is said of a key that does not exist.
pub(super) fn unknown(name: &str) -> String {
    let nearest = KEYS
        .iter()
        .map(|key| (strsim::jaro_winkler(key.name, name), key.name))
        // The last part alone may have been written.
        .chain(KEYS.iter().filter_map(|key| {
            let (_, last) = key.name.rsplit_once('.')?;
            Some((strsim::jaro_winkler(last, name), key.name))
        }))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    let tip = match nearest {
        Some((likeness, key)) if likeness > 0.75 => format!("did you mean {key}?"),
        _ => "sd-agent --help lists all keys".to_owned(),
    };
    let shown: String = name.chars().take(64).collect();
    format!("there is no key {}: {tip}", Printable(&shown))
}
