//! What is in a state file, as far as it can be read: damage in one registration costs that one alone, damage before the first one costs
//! none, and a file that a disk has cut short still has what stands before the cut.

use serde::Deserialize;
use serde::de::{Error as _, IgnoredAny};
use serde_json::{Error, Result, Value};

use super::damage::{Damage, Damaged};
use super::file::ENDS;
use super::reader::{BEGIN, Reader, places};
use super::stored::Stored;
use super::sums;
use super::unread::Unread;

/// What may stand between two registrations without being one: more than a separator, and less than any registration.
const LONGEST_GAP: usize = 16;

/// The parts of a file.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// It stands first, and `ending` next, so that both are known of a file that was cut.
    pub(super) version: Option<u32>,
    /// All of its registrations are to end. Since each of them says so itself, this is for older agents, and in what they have written.
    ending: bool,
    /// The head has a checksum, and so has each registration.
    has_sums: bool,
    /// A registration has none: an older agent has written it.
    is_older: bool,
    /// Those to go on with. None if the file has no list of them.
    pub(super) registrations: Option<Vec<Stored>>,
    /// Those that are to end.
    pub(super) left: Vec<Stored>,
    pub(super) damage: Damage,
}

impl Contents {
    /// Reads as far as it can.
    pub(super) fn read(bytes: &[u8]) -> Self {
        let mut contents = Self::default();
        let mut read = contents.fields(Reader { bytes, at: 0 });
        if contents.registrations.is_none()
            && let Some(at) = (Reader { bytes, at: 0 }).next_begin(0)
        {
            let why = read.err().map(|error| error.to_string());
            let why = why.unwrap_or_else(|| "it has no list of registrations".to_owned());
            contents.damage.head.get_or_insert(why);
            let head = bytes.get(..at).unwrap_or_default();
            contents.ending |= places(head, ENDS).next().is_some();
            read = contents.list(&mut Reader { bytes, at });
        }
        if let Some(why) = &mut contents.damage.head
            && contents.is_older
            && !contents.ending
        {
            why.push_str("; whether all of its registrations were to end is not known: they stay");
        }
        contents.damage.cut = read.err().map(|error| error.to_string());
        if contents.ending
            && let Some(registrations) = &mut contents.registrations
        {
            contents.left.append(registrations);
        }
        contents
    }

    fn fields(&mut self, mut file: Reader<'_>) -> Result<()> {
        file.expect(b'{')?;
        let mut end = file.at;
        loop {
            let field: String = file.value()?;
            file.expect(b':')?;
            match field.as_str() {
                "version" => self.version = Some(file.value()?),
                "ending" => self.ending = file.value()?,
                sums::FIELD => {
                    self.has_sums = true;
                    let told: Value = file.value()?;
                    let head = file.bytes.get(..end).unwrap_or_default();
                    if told != sums::of(head) {
                        let why = "its head has another checksum than was written";
                        self.damage.head = Some(why.to_owned());
                    }
                }
                "registrations" => {
                    file.expect(b'[')?;
                    self.registrations = Some(Vec::new());
                    if !file.takes(b']') {
                        self.list(&mut file)?;
                    }
                }
                _ => drop(file.value::<IgnoredAny>()?),
            }
            end = file.at;
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
        let registrations = self.registrations.get_or_insert_default();
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
            let text = file.bytes.get(begin..end).unwrap_or_default();
            let one = value.and_then(|value| One::read(text, value, self.has_sums));
            let next = match separator {
                Some(_) => Some(file.at),
                // One that is whole has no other one within.
                None => file.next_begin(if one.is_ok() { end } else { begin + 1 }),
            };
            let until = next.unwrap_or(file.bytes.len());
            let why = match one {
                Ok(one) => {
                    is_behind_damage = false;
                    self.is_older |= !one.has_sum;
                    let list = if one.ends {
                        &mut self.left
                    } else {
                        &mut *registrations
                    };
                    list.push(one.stored);
                    let why = file.wrong_at(end, "expected , or ]");
                    if separator.is_none() && until > end + LONGEST_GAP {
                        let gap = Damaged::new(file.bytes, end..until, &why);
                        self.damage.lost.push(gap);
                    }
                    why
                }
                Err(why) => {
                    if !is_rest {
                        let lost = Damaged::new(file.bytes, begin..until, &why);
                        self.damage.lost.push(lost);
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

/// One registration of the list.
struct One {
    stored: Stored,
    /// It is to end.
    ends: bool,
    has_sum: bool,
}

impl One {
    /// What is wrong with one that is JSON is told without what it holds.
    fn read(text: &[u8], value: Value, has_sum: bool) -> Result<Self> {
        // Older agents wrote none. Damage may have closed it before its own.
        let has_sum = has_sum || value.get(sums::FIELD).is_some();
        if has_sum && !sums::is_whole(text) {
            return Err(Error::custom("it has another checksum than was written"));
        }
        let ends = value.get("ending") == Some(&Value::Bool(true));
        let stored = Stored::deserialize(&value).or_else(|error| {
            let why = sd_backend::without_input(&error.to_string());
            Unread::read(text, value).ok_or_else(|| Error::custom(why))
        })?;
        Ok(Self {
            stored,
            ends,
            has_sum,
        })
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
        let instance = instance.with_incarnation(sd_core::Incarnation::from_u64(7));
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

    fn ids_of<'a>(registrations: impl IntoIterator<Item = &'a Stored>) -> Vec<&'a str> {
        let ids = registrations.into_iter().map(|one| one.instance.id());
        ids.map(sd_core::InstanceId::as_str).collect()
    }

    fn ids(contents: &Contents) -> Vec<&str> {
        ids_of(contents.registrations.iter().flatten())
    }

    fn written(ids: &[&str], left: &[&str]) -> Vec<u8> {
        let all = |ids: &[&str]| ids.iter().map(|id| Arc::new(one(id))).collect();
        let state = State {
            registrations: all(ids),
            left: all(left),
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
        let whole = written(&["g-1", "g-2"], &[]);
        let mut most = 0;
        for length in 0..whole.len() {
            let contents = Contents::read(&whole[..length]);
            assert!(contents.damage.cut.is_some(), "{length}");
            let read = ids(&contents).len();
            assert!(read >= most, "{length}");
            most = read;
            if most > 0 {
                assert_eq!(contents.version, Some(1));
            }
        }
        assert_eq!(most, 2);
        let contents = Contents::read(&whole);
        assert_eq!(ids(&contents), ["g-1", "g-2"]);
        assert_eq!(contents.damage, Damage::default());
        for wrong in [
            "[]",
            "null",
            "{}",
            "{\"version\":1} x",
            "{\"registrations\":{}}",
            "{\"version\":-1}",
        ] {
            let contents = Contents::read(wrong.as_bytes());
            assert!(contents.damage.cut.is_some(), "{wrong}");
        }
        let later = br#"{"later":[{}], "version":1, "registrations":[], "more":{"a":[1]}}"#;
        let contents = Contents::read(later);
        assert_eq!(contents.version, Some(1));
        assert_eq!(contents.damage, Damage::default());
    }

    /// Whichever byte it is, and whatever it became: also a separator, a bracket, a quote or a part of no character.
    #[test]
    fn one_damaged_byte_costs_at_most_the_registration_that_it_is_in() {
        let whole = written(&["g-1", "g-2", "g-3"], &[]);
        let [_, second, third] = begins(&whole);
        for at in second..third {
            for byte in [
                0, b'"', b',', b':', b'\\', b'[', b']', b'{', b'}', b'1', b'a', 0xff,
            ] {
                let mut damaged = whole.clone();
                damaged[at] = byte;
                let contents = Contents::read(&damaged);
                let cut = contents.damage.cut.as_ref();
                let shown = || String::from_utf8_lossy(&damaged[second..third]).into_owned();
                let read = ids(&contents);
                assert_eq!(
                    (read.first(), read.last(), cut),
                    (Some(&"g-1"), Some(&"g-3"), None),
                    "{}",
                    shown()
                );
                let lost = &contents.damage.lost;
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
        let whole = written(&["g-1", "g-2", "g-3"], &[]);
        let text = String::from_utf8(whole.clone()).unwrap();
        let [_, second, third] = begins(&whole);
        let damaged = |from: &str, to: &str| {
            let at = second + text[second..].find(from).unwrap();
            let damaged = [&text[..at], to, &text[at + from.len()..]].concat();
            let contents = Contents::read(damaged.as_bytes());
            let [lost] = &contents.damage.lost[..] else {
                panic!("{from}: {:?}", contents.damage);
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
        let contents = Contents::read(&zeros);
        let damage = &contents.damage;
        assert_eq!((ids(&contents), damage.lost.len()), (vec!["g-1", "g-3"], 1));
        assert_eq!(damage.cut, None);
    }

    /// No damage makes it another registration, or one that is to end one that stays.
    #[test]
    fn whichever_byte_is_damaged_what_is_read_was_written_so_and_at_most_one_registration_is_lost()
    {
        let (stays, ends) = (["g-1", "g-2"], ["g-3", "g-4"]);
        for (stays, ends) in [(&stays[..], &ends[..]), (&stays, &[]), (&[], &ends)] {
            let whole = written(stays, ends);
            for at in 0..whole.len() {
                let mut damaged = whole.clone();
                damaged[at] ^= 1 << (at % 8);
                let contents = Contents::read(&damaged);
                let read = contents.registrations.as_deref().unwrap_or_default();
                let left = &contents.left;
                let shown = || (at, ids_of(read), ids_of(left), &contents.damage);
                let are_written = |read: &[Stored], ids: &[&str]| {
                    let mut read = read.iter();
                    read.all(|read| ids.iter().any(|id| *read == one(id)))
                };
                assert!(are_written(read, stays), "{:?}", shown());
                assert!(are_written(left, ends), "{:?}", shown());
                let count = read.len() + left.len();
                assert!(count + 1 >= stays.len() + ends.len(), "{:?}", shown());
            }
        }
    }

    #[test]
    fn what_an_older_agent_has_written_is_read_also_with_a_damaged_head() {
        let list = serde_json::to_string(&[one("g-1"), one("g-2")]).unwrap();
        let heads = [
            ("{\"version\":1,\"registrations\":", 2, 0, false),
            (
                "{\"version\":1,\"ending\":true,\"registrations\":",
                0,
                2,
                false,
            ),
            ("{\"version\":1,\"registratiOns\":", 2, 0, true),
            ("x", 2, 0, true),
            (
                "{\"version\":\0,\"ending\":true,\"registrations\":",
                0,
                2,
                true,
            ),
        ];
        for (head, stay, end, is_damaged) in heads {
            let contents = Contents::read(format!("{head}{list}}}").as_bytes());
            assert_eq!((ids(&contents).len(), contents.left.len()), (stay, end));
            let told = &contents.damage.head;
            assert_eq!(told.is_some(), is_damaged, "{head}");
            if let Some(told) = told {
                assert_eq!(told.contains("is not known"), end == 0, "{told}");
            }
            assert_eq!(contents.damage.lost, []);
        }
    }

    /// As an older agent has written it, which took this address.
    #[test]
    fn a_registration_with_an_address_that_is_refused_now_is_no_damage_and_stays_as_it_was() {
        let whole = serde_json::to_string(&one("g-1")).unwrap();
        let refused = whole.replace("\"10.0.0.7:1\"", "\"127.1:1\"");
        let ends = refused.replace("g-1", "g-2");
        let ends = format!("{},\"ending\":true}}", ends.strip_suffix('}').unwrap());
        let text = format!(
            "{{\"version\":1,\"registrations\":[{refused},{},{ends}]}}",
            whole.replace("g-1", "g-3")
        );
        let mut bytes = text.into_bytes();
        // The first time without sums, and then as this version writes it.
        for _ in 0..3 {
            let contents = Contents::read(&bytes);
            assert_eq!(contents.damage, Damage::default());
            assert_eq!(ids(&contents), ["g-1", "g-3"]);
            assert_eq!(ids_of(&contents.left), ["g-2"]);
            let shared = |all: Vec<Stored>| all.into_iter().map(Arc::new).collect();
            let state = State {
                registrations: shared(contents.registrations.unwrap()),
                left: shared(contents.left),
            };
            let why = &state.registrations[0].unread.as_ref().unwrap().why;
            assert!(why.contains("four numbers"), "{why}");
            assert_eq!(state.registrations[1].unread, None);
            bytes = StateFile::encode(&state).unwrap();
            let text = String::from_utf8(bytes.clone()).unwrap();
            for (part, times) in [("127.1:1", 4), ("\"ending\"", 1), ("refused.invalid", 0)] {
                assert_eq!(text.matches(part).count(), times, "{part}: {text}");
            }
        }
    }

    #[test]
    fn a_registration_is_not_looked_for_within_another_one() {
        let text = |id: &str| serde_json::to_string(&one(id)).unwrap();
        let outer = text("g-1");
        let outer = outer.strip_suffix('}').unwrap();
        let inner = format!("[{}]", text("g-2"));
        // The separator behind it is damaged.
        let list = format!("{outer},\"later\":{inner}}}\0{}", text("g-3"));
        let text = format!("{{\"version\":1,\"registrations\":[{list}]}}");
        let contents = Contents::read(text.as_bytes());
        assert_eq!(ids(&contents), ["g-1", "g-3"]);
    }
}
