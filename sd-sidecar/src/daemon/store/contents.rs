//! What is in a state file, as far as it can be read: damage in one registration costs that one alone, and a file that a disk has cut short
//! still has what stands before the cut.

use std::fmt;
use std::ops::Range;

use sd_core::{Printable, brief};
use serde::de::{DeserializeOwned, Error as _, IgnoredAny};
use serde_json::{Result, Value};

use super::stored::Stored;

/// What each registration begins with: the first field of [`Stored`], as serde writes it.
const BEGIN: &[u8] = b"{\"owner\":";
/// What may stand between two registrations without being one: more than a separator, and less than any registration.
const LONGEST_GAP: usize = 16;

/// The parts of a file.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// It stands first, and `ending` next, so that both are known of a file that was cut.
    pub(super) version: Option<u32>,
    /// Everything is to end. Not written by older agents.
    pub(super) ending: bool,
    /// None if the file has no list of them.
    pub(super) registrations: Option<Vec<Stored>>,
    /// Those of the list that cannot be read.
    pub(super) damaged: Vec<Damaged>,
}

/// A registration that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Damaged {
    /// The byte at which it begins, counted from 0.
    at: usize,
    /// As far as they can be read. They may hold anything.
    service: Option<String>,
    id: Option<String>,
    /// What is wrong with it.
    pub(crate) why: String,
}

impl Damaged {
    fn new(file: &[u8], range: Range<usize>, why: &serde_json::Error) -> Self {
        let at = range.start;
        let bytes = file.get(range).unwrap_or_default();
        // Metadata may have one before that.
        let instance = places(bytes, b"\"instance\":").next();
        let instance = bytes
            .get(instance.unwrap_or_default()..)
            .unwrap_or_default();
        Self {
            at,
            service: text_after(bytes, b"\"service\":"),
            id: text_after(instance, b"\"id\":"),
            why: why.to_string(),
        }
    }
}

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |text: &Option<String>| {
            let text = text.as_deref().unwrap_or("?");
            brief(Printable(&brief(text)))
        };
        let (id, service) = (shown(&self.id), shown(&self.service));
        write!(f, "{id} of {service} (byte {})", self.at)
    }
}

/// Where `wanted` stands.
fn places(bytes: &[u8], wanted: &[u8]) -> impl Iterator<Item = usize> {
    let windows = bytes.windows(wanted.len()).enumerate();
    windows.filter_map(move |(at, found)| (found == wanted).then_some(at))
}

/// The text of the first field with this name that has one.
fn text_after(bytes: &[u8], name: &[u8]) -> Option<String> {
    places(bytes, name).find_map(|at| {
        let at = at + name.len();
        Reader { bytes, at }.value().ok()
    })
}

impl Contents {
    /// Reads as far as it can, and says why not to the end.
    pub(super) fn read(bytes: &[u8]) -> (Self, Option<String>) {
        let mut contents = Self::default();
        let read = contents.fields(Reader { bytes, at: 0 });
        (contents, read.err().map(|error| error.to_string()))
    }

    fn fields(&mut self, mut file: Reader<'_>) -> Result<()> {
        file.expect(b'{')?;
        loop {
            let field: String = file.value()?;
            file.expect(b':')?;
            match field.as_str() {
                "version" => self.version = Some(file.value()?),
                "ending" => self.ending = file.value()?,
                "registrations" => self.list(&mut file)?,
                _ => drop(file.value::<IgnoredAny>()?),
            }
            if !file.takes(b',') {
                file.expect(b'}')?;
                return file.end();
            }
        }
    }

    /// Takes the registrations to the end of their list. After a damaged one it goes on with the next that can be found.
    ///
    /// # Errors
    /// Why the end of the list was not found.
    fn list(&mut self, file: &mut Reader<'_>) -> Result<()> {
        file.expect(b'[')?;
        let registrations = self.registrations.get_or_insert_default();
        if file.takes(b']') {
            return Ok(());
        }
        let mut is_behind_damage = false;
        loop {
            file.skip_space();
            let begin = file.at;
            // Damage may have closed a registration too early, and what is left of it is not another one.
            let is_rest = is_behind_damage && !file.rest().starts_with(BEGIN);
            let value = file.value::<Value>();
            let end = file.at;
            // Otherwise it is damaged within, or what stands behind it is.
            let separator = match &value {
                Ok(_) if file.takes(b',') => Some(b','),
                Ok(_) if file.takes(b']') && file.is_behind_list() => Some(b']'),
                _ => None,
            };
            let next = match separator {
                Some(_) => Some(file.at),
                None => file.next_begin(begin + 1),
            };
            let until = next.unwrap_or(file.bytes.len());
            let stored = value.and_then(stored);
            let why = match stored {
                Ok(stored) => {
                    is_behind_damage = false;
                    registrations.push(stored);
                    let why = file.wrong_at(end, "expected , or ]");
                    if separator.is_none() && until > end + LONGEST_GAP {
                        self.damaged
                            .push(Damaged::new(file.bytes, end..until, &why));
                    }
                    why
                }
                Err(why) => {
                    if !is_rest {
                        self.damaged
                            .push(Damaged::new(file.bytes, begin..until, &why));
                    }
                    is_behind_damage = true;
                    why
                }
            };
            match (separator, next) {
                (Some(b']'), _) => return Ok(()),
                (_, Some(next)) => file.at = next,
                (_, None) => return Err(why),
            }
        }
    }
}

/// What is wrong with one that is JSON is told without what it holds.
fn stored(value: Value) -> Result<Stored> {
    let stored = serde_json::from_value(value);
    stored.map_err(|error| serde_json::Error::custom(sd_backend::without_input(&error.to_string())))
}

/// How far a file has been read.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    fn skip_space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_ascii_start().len();
    }

    /// Whether this byte comes next, which is passed then.
    fn takes(&mut self, byte: u8) -> bool {
        self.skip_space();
        let is_next = self.rest().first() == Some(&byte);
        self.at += usize::from(is_next);
        is_next
    }

    fn expect(&mut self, byte: u8) -> Result<()> {
        if self.takes(byte) {
            return Ok(());
        }
        let expected = char::from(byte);
        Err(self.wrong_at(self.at, format_args!("expected {expected}")))
    }

    fn end(&mut self) -> Result<()> {
        self.skip_space();
        if self.rest().is_empty() {
            return Ok(());
        }
        Err(self.wrong_at(self.at, "something follows behind its end"))
    }

    fn wrong_at(&self, at: usize, why: impl fmt::Display) -> serde_json::Error {
        let cut = if at < self.bytes.len() {
            ""
        } else {
            ", the end"
        };
        serde_json::Error::custom(format_args!("{why} at byte {at}{cut}"))
    }

    /// The value that comes next. One that cannot be read is not passed.
    fn value<T: DeserializeOwned>(&mut self) -> Result<T> {
        let mut values = serde_json::Deserializer::from_slice(self.rest()).into_iter();
        let value = values.next();
        let read = values.byte_offset();
        match value {
            Some(Ok(value)) => {
                self.at += read;
                Ok(value)
            }
            Some(Err(error)) => Err(self.placed(&error)),
            None => Err(self.wrong_at(self.at, "expected a value")),
        }
    }

    /// With its place in the file instead of that in the value.
    fn placed(&self, error: &serde_json::Error) -> serde_json::Error {
        let text = error.to_string();
        let why = text.split(" at line ").next().unwrap_or_default();
        let lines = self.rest().split_inclusive(|byte| *byte == b'\n');
        let before: usize = lines
            .take(error.line().saturating_sub(1))
            .map(<[u8]>::len)
            .sum();
        self.wrong_at(self.at + before + error.column(), why)
    }

    /// Behind a `]`: whether it has ended the list, and no registration follows.
    fn is_behind_list(&mut self) -> bool {
        self.skip_space();
        let ends = matches!(self.rest().first(), None | Some(b',' | b'}'));
        ends || self.next_begin(self.at).is_none()
    }

    /// Where the next registration begins, at `from` or behind.
    fn next_begin(&self, from: usize) -> Option<usize> {
        let rest = self.bytes.get(from..)?;
        let mut begins = places(rest, BEGIN).map(|at| from + at);
        begins.find(|at| self.is_begin(*at))
    }

    /// Whether what looks like the begin of a registration is one, and no object of another registration.
    fn is_begin(&self, at: usize) -> bool {
        let before = self.bytes.get(..at).unwrap_or_default().trim_ascii_end();
        match (Self { at, ..*self }).value::<Value>() {
            Ok(value) => value["declaration"].is_object() || value["instance"].is_object(),
            // Damaged as well.
            Err(_) => matches!(before.last(), Some(b',' | b'[')),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::super::file::StateFile;
    use super::super::stored::State;
    use super::*;

    /// A registration with all that may be taken for the begin of another one.
    fn one(id: &str) -> Stored {
        let metadata = json!({"owner": "{\"owner\":\"x\"}", "declaration": "[{\"owner\":"});
        let instance = sd_core::Instance::new("greeter", "10.0.0.7:1").unwrap();
        let instance = instance.with_id(sd_core::InstanceId::new(id).unwrap());
        serde_json::from_value(json!({
            "owner": "a",
            "declaration": {
                "service": "greeter",
                "address": "10.0.0.7:1",
                "app": {"app_id": "shop", "app_instance_id": "run"},
                "metadata": metadata,
            },
            "instance": instance.with_metadata("owner", "y"),
            "passing": true,
            "registered_at": 1234,
            "updated_at": 5678,
        }))
        .unwrap()
    }

    fn ids(contents: &Contents) -> Vec<&str> {
        let registrations = contents.registrations.iter().flatten();
        registrations
            .map(|one| one.instance.id().as_str())
            .collect()
    }

    fn written(ids: &[&str]) -> Vec<u8> {
        let state = State {
            registrations: ids.iter().map(|id| Arc::new(one(id))).collect(),
            ending: false,
        };
        StateFile::encode(&state).unwrap()
    }

    /// Where the three of them begin. Each has metadata that look the same.
    fn begins(whole: &[u8]) -> [usize; 3] {
        let alike: Vec<_> = places(whole, BEGIN).collect();
        assert_eq!(alike.len(), 6);
        let begins = alike.into_iter().filter(|at| whole[at - 1] != b':');
        begins.collect::<Vec<_>>().try_into().unwrap()
    }

    #[test]
    fn what_stands_before_a_cut_is_read_wherever_it_is() {
        let whole = written(&["g-1", "g-2"]);
        let mut most = 0;
        for length in 0..whole.len() {
            let (contents, cut) = Contents::read(&whole[..length]);
            assert!(cut.is_some(), "{length}");
            let read = ids(&contents).len();
            assert!(read >= most, "{length}");
            most = read;
            if most > 0 {
                assert_eq!(contents.version, Some(1));
            }
        }
        assert_eq!(most, 2);
        let (contents, cut) = Contents::read(&whole);
        assert_eq!((ids(&contents), cut), (vec!["g-1", "g-2"], None));
        assert_eq!(contents.damaged, []);
        for wrong in [
            "[]",
            "null",
            "{}",
            "{\"version\":1} x",
            "{\"registrations\":{}}",
            "{\"version\":-1}",
        ] {
            assert!(Contents::read(wrong.as_bytes()).1.is_some(), "{wrong}");
        }
        let later = br#"{"later":[{}], "version":1, "registrations":[], "more":{"a":[1]}}"#;
        let (contents, cut) = Contents::read(later);
        assert_eq!((contents.version, cut), (Some(1), None));
    }

    /// Whichever byte it is, and whatever it became: also a separator, a bracket, a quote or a part of no character.
    #[test]
    fn one_damaged_byte_costs_at_most_the_registration_that_it_is_in() {
        let whole = written(&["g-1", "g-2", "g-3"]);
        let [_, second, third] = begins(&whole);
        for at in second..third {
            for byte in [
                0, b'"', b',', b':', b'\\', b'[', b']', b'{', b'}', b'1', b'a', 0xff,
            ] {
                let mut damaged = whole.clone();
                damaged[at] = byte;
                let (contents, cut) = Contents::read(&damaged);
                let shown = || String::from_utf8_lossy(&damaged[second..third]).into_owned();
                let read = ids(&contents);
                assert_eq!(
                    (read.first(), read.last(), cut),
                    (Some(&"g-1"), Some(&"g-3"), None),
                    "{}",
                    shown()
                );
                let lost = &contents.damaged;
                assert_eq!(read.len() + lost.len(), 3, "{}: {lost:?}", shown());
                assert!(
                    lost.iter().all(|lost| lost.at == second),
                    "{}: {lost:?}",
                    shown()
                );
            }
        }
    }

    #[test]
    fn a_damaged_registration_is_named_as_far_as_it_can_be_read() {
        let whole = written(&["g-1", "g-2", "g-3"]);
        let text = String::from_utf8(whole.clone()).unwrap();
        let [_, second, third] = begins(&whole);
        let damaged = |from: &str, to: &str| {
            let at = second + text[second..].find(from).unwrap();
            let damaged = [&text[..at], to, &text[at + from.len()..]].concat();
            let (contents, _) = Contents::read(damaged.as_bytes());
            let [lost] = &contents.damaged[..] else {
                panic!("{from}: {:?}", contents.damaged);
            };
            lost.clone()
        };
        let lost = damaged("\"passing\":true", "\"passing\":tr\0e");
        assert_eq!(lost.to_string(), format!("g-2 of greeter (byte {second})"));
        let lost = damaged("\"owner\":\"a\"", "\"owner\":77777");
        assert_eq!(lost.to_string(), format!("g-2 of greeter (byte {second})"));
        assert!(!lost.why.contains("77777"), "{}", lost.why);
        let lost = damaged("\"g-2\"", "\"\u{1b}-2\"");
        assert_eq!(lost.to_string(), format!("? of greeter (byte {second})"));
        // A whole one that is gone.
        let mut zeros = whole.clone();
        zeros[second - 1..third].fill(0);
        let (contents, cut) = Contents::read(&zeros);
        assert_eq!(
            (ids(&contents), contents.damaged.len()),
            (vec!["g-1", "g-3"], 1)
        );
        assert_eq!(cut, None);
    }
}
