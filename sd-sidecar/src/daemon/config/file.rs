//! Configuration files: TOML or YAML, by their extension.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use sd_core::{Printable, brief};
use serde::de::DeserializeOwned;

use super::ConfigError;
use super::keys::{KEYS, Key};

/// Far more than any configuration has.
const MOST_BYTES: u64 = 4 * 1024 * 1024;

/// Reads a file into a value. Blocks.
pub(crate) fn parse<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    let shown = Printable(&path.display().to_string()).to_string();
    let wrong = |why: String| ConfigError::new(format!("{shown}: {why}"));
    let text = text(path).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("toml") => parse_toml(&text).map_err(wrong),
        Some("yaml" | "yml") => parse_yaml(&text).map_err(wrong),
        _ => Err(wrong("is neither .toml nor .yaml or .yml".to_owned())),
    }
}

/// What is wrong with the language is told in the words of the library. What is wrong with a value is told without it, since it may be a
/// secret.
fn parse_toml<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let at_line = |error: &toml::de::Error, why: &str| match error.span() {
        Some(span) => {
            let before = text.as_bytes().iter().take(span.start);
            let line = before.filter(|byte| **byte == b'\n').count() + 1;
            format!("line {line}: {why}")
        }
        None => why.to_owned(),
    };
    let language = text.parse::<toml::Table>();
    language.map_err(|error| at_line(&error, &of_language(error.message())))?;
    let read = toml::from_str(text);
    read.map_err(|error| at_line(&error, &sd_backend::without_input(error.message())))
}

/// As [`parse_toml`]. A key that is there twice is refused here as well.
fn parse_yaml<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let at_line = |error: &serde_norway::Error, why: &str| match error.location() {
        // Some messages name it themselves.
        Some(location) if !why.contains(" at line ") => {
            format!("line {}: {why}", location.line())
        }
        _ => why.to_owned(),
    };
    let language = serde_norway::from_str::<serde_norway::Value>(text);
    language.map_err(|error| at_line(&error, &of_language(&error.to_string())))?;
    let read = serde_norway::from_str(text);
    read.map_err(|error| at_line(&error, &sd_backend::without_input(&error.to_string())))
}

/// One line, without what a library quotes of the text.
fn of_language(message: &str) -> String {
    let plain = message.lines().next().unwrap_or_default();
    Printable(&brief(plain)).to_string()
}

fn text(path: &Path) -> std::io::Result<String> {
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

/// The texts of the keys in a configuration file. Blocks.
pub(super) fn read(path: &Path) -> Result<BTreeMap<&'static str, Vec<String>>, ConfigError> {
    let tables: Option<BTreeMap<String, Node>> = parse(path)?;
    let mut found = BTreeMap::new();
    flatten("", tables.unwrap_or_default(), &mut found).map_err(|why| {
        ConfigError::new(format!("{}: {why}", Printable(&path.display().to_string())))
    })?;
    Ok(found)
}

fn flatten(
    before: &str,
    table: BTreeMap<String, Node>,
    found: &mut BTreeMap<&'static str, Vec<String>>,
) -> Result<(), String> {
    for (part, node) in table {
        let name = if before.is_empty() {
            part
        } else {
            format!("{before}.{part}")
        };
        if let Some(key) = Key::named(&name) {
            found.insert(key.name, texts(key, node)?);
        } else if let (Node::Table(table), true) = (node, is_table(&name)) {
            flatten(&name, table, found)?;
        } else {
            return Err(unknown(&name));
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
