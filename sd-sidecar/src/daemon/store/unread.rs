//! Older versions took addresses and checks that this one refuses. A registration with one of them is read without it, and stays in the file
//! as it was written.

use sd_core::Endpoint;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::file::ENDS;
use super::stored::Stored;
use super::sums;
use crate::wire::CheckSpec;

/// Where it is shown to be meanwhile. No host has a name that ends so: RFC 6761, section 6.4.
const NO_HOST: &str = "refused.invalid";

/// What stays in the file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Unread {
    /// Its object, without `ending`, the sum and the last bracket.
    text: Vec<u8>,
    /// What is refused, and why.
    pub(crate) why: String,
    /// That is the address of this host as it was then, and the declaration names a port alone.
    pub(crate) is_host: bool,
}

impl Unread {
    /// Reads a registration without what is refused: its address and its checks. `text` is its object, and `value` what that holds. `None`
    /// if it cannot be read then either, or nothing is refused.
    pub(super) fn read(text: &[u8], mut value: Value) -> Option<Stored> {
        let declaration = value.get_mut("declaration")?.as_object_mut()?;
        let checks = without_refused_checks(declaration);
        let declared = refused_address(declaration);
        let names_host = declaration.contains_key("address");
        if declared.is_some() {
            declaration.remove("address");
        }
        let instance = value.get_mut("instance")?.as_object_mut()?;
        let registered = refused_address(instance);
        if registered.is_some() {
            let address = instance.get("address").and_then(Value::as_str);
            let stand_in = stand_in(address.unwrap_or_default());
            instance.insert("address".to_owned(), stand_in.into());
        }
        let is_host = checks.is_none() && !names_host;
        // The record has the address that was declared.
        let why = declared.or(registered).or(checks)?;
        let text = unclosed(text).to_vec();
        let stored = Stored::deserialize(value).ok()?;
        Some(Stored {
            unread: Some(Self { text, why, is_host }),
            ..stored
        })
    }

    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }
}

/// Why the address is refused, if it is text and no address.
fn refused_address(fields: &Map<String, Value>) -> Option<String> {
    let address = fields.get("address")?.as_str()?;
    let error = address.parse::<Endpoint>().err()?;
    Some(format!("address: {}", error.report()))
}

/// Takes out the checks if one of them is refused, and says why.
fn without_refused_checks(declaration: &mut Map<String, Value>) -> Option<String> {
    let checks = declaration.get("checks")?.as_array()?.iter();
    let why = checks.enumerate().find_map(|(at, check)| {
        let error = CheckSpec::deserialize(check).err()?;
        let why = sd_backend::without_input(&error.to_string());
        Some(format!("checks[{at}]: {why}"))
    })?;
    declaration.remove("checks");
    Some(why)
}

/// An address at the same port, which nothing can dial.
fn stand_in(address: &str) -> String {
    let port = address.rsplit_once(':').map(|(_, port)| port);
    match port.and_then(|port| port.parse::<u16>().ok()) {
        Some(port @ 1..) => format!("{NO_HOST}:{port}"),
        _ => format!("unix:/{NO_HOST}"),
    }
}

/// An object without what is written behind its fields.
fn unclosed(object: &[u8]) -> &[u8] {
    let fields = sums::summed(object).or_else(|| object.strip_suffix(b"}"));
    let fields = fields.unwrap_or(object).trim_ascii_end();
    fields.strip_suffix(ENDS).unwrap_or(fields)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn one(address: &str) -> Value {
        json!({
            "owner": "a",
            "declaration": {"service": "greeter", "address": address, "metadata": {"k": "v"}},
            "instance": {"service": "greeter", "id": "g-1", "incarnation": "2a", "address": address},
            "passing": true,
            "registered_at": 1234,
            "updated_at": 5678,
        })
    }

    fn read(value: Value) -> Option<Stored> {
        Unread::read(value.to_string().as_bytes(), value)
    }

    #[test]
    fn all_but_an_address_that_is_refused_is_read_and_the_text_stays() {
        for (address, shown) in [
            ("127.1:80", "refused.invalid:80"),
            ("10.0.0.07:80", "refused.invalid:80"),
            ("224.0.0.1:80", "refused.invalid:80"),
            ("10.0.0.7", "unix:/refused.invalid"),
            ("host:0", "unix:/refused.invalid"),
        ] {
            let written = one(address);
            let stored = read(written.clone()).unwrap();
            let instance = &stored.instance;
            assert_eq!(instance.endpoint().to_string(), shown, "{address}");
            assert_eq!(instance.incarnation().as_u64(), 42);
            assert_eq!(stored.declaration.address, None);
            assert_eq!(stored.declaration.metadata["k"], "v");
            let why = &stored.unread.as_ref().unwrap().why;
            assert!(why.starts_with("address: "), "{why}");
            let mut text = Vec::new();
            stored.append_unclosed(&mut text).unwrap();
            text.push(b'}');
            assert_eq!(serde_json::from_slice::<Value>(&text).unwrap(), written);
        }
    }

    #[test]
    fn checks_of_which_one_is_refused_are_left_out_and_the_reason_names_it() {
        let mut written = one("10.0.0.7:80");
        written["declaration"]["checks"] =
            json!([{"kind": "tcp"}, {"kind": "http", "url": "http://127.1/?token=sesame"}]);
        let stored = read(written).unwrap();
        assert_eq!(stored.declaration.checks, []);
        assert_eq!(stored.instance.endpoint().to_string(), "10.0.0.7:80");
        let why = &stored.unread.unwrap().why;
        assert!(why.starts_with("checks[1]: "), "{why}");
        assert!(!why.contains("sesame"), "{why}");
    }

    #[test]
    fn an_address_of_the_host_is_told_from_one_that_was_declared_and_from_checks() {
        let is_host = |value: &Value| read(value.clone()).unwrap().unread.unwrap().is_host;
        assert!(!is_host(&one("127.1:80")));
        let mut by_port = one("127.1:80");
        let declaration = by_port["declaration"].as_object_mut().unwrap();
        declaration.remove("address");
        declaration.insert("port".to_owned(), json!(80));
        assert!(is_host(&by_port));
        by_port["declaration"]["checks"] = json!([{"kind": "tcp", "address": "127.1:80"}]);
        assert!(!is_host(&by_port));
    }

    #[test]
    fn what_is_wrong_otherwise_is_not_read() {
        let mut nameless = one("127.1:80");
        nameless["instance"]["id"] = json!("");
        let mut no_text = one("127.1:80");
        no_text["instance"]["address"] = json!(7);
        for wrong in [one("10.0.0.7:80"), nameless, no_text, json!([]), json!({})] {
            assert_eq!(read(wrong.clone()), None, "{wrong}");
        }
    }
}
