//! Names as names of nodes. Pure functions.
//!
//! What ZooKeeper takes as the name of a node is written as it is, unless it looks like an encoded name. Anything else is percent-encoded.
//! So no two names share a node, and services of other programs keep their names.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// A name as the name of a node.
pub(crate) fn node_name(name: &str) -> Cow<'_, str> {
    let is_plain = !matches!(name, "." | "..")
        && name.chars().all(is_allowed)
        && decoded(name).is_none_or(|decoded| decoded == name);
    if is_plain {
        return Cow::Borrowed(name);
    }
    let is_dots = matches!(name, "." | "..");
    let mut encoded = String::with_capacity(name.len() + 8);
    for c in name.chars() {
        if is_allowed(c) && c != '%' && !is_dots {
            encoded.push(c);
            continue;
        }
        let mut bytes = [0; 4];
        for byte in c.encode_utf8(&mut bytes).bytes() {
            encoded.push('%');
            for digit in [byte >> 4, byte & 15] {
                encoded.extend(char::from_digit(digit.into(), 16).map(|c| c.to_ascii_uppercase()));
            }
        }
    }
    Cow::Owned(encoded)
}

/// The name whose node this is. `None` if no name of ours has such a node.
pub(crate) fn name_of(node: &str) -> Option<Cow<'_, str>> {
    let name = decoded(node).unwrap_or(Cow::Borrowed(node));
    (node_name(&name) == node).then_some(name)
}

fn decoded(text: &str) -> Option<Cow<'_, str>> {
    percent_decode_str(text).decode_utf8().ok()
}

/// What is wrong with a path: empty, or with a slash before each of its names and none at its end.
pub(crate) fn check_path(path: &str) -> Result<(), String> {
    if path.is_empty() {
        return Ok(());
    }
    let Some(names) = path.strip_prefix('/') else {
        return Err("must begin with a slash".to_owned());
    };
    for name in names.split('/') {
        if name.is_empty() {
            return Err("must not have two slashes in a row".to_owned());
        }
        if matches!(name, "." | "..") {
            return Err(format!("must not have {name} as a name in it"));
        }
        if !name.chars().all(is_allowed) {
            return Err(
                "must not have control characters or others that ZooKeeper refuses".to_owned(),
            );
        }
    }
    if names == "zookeeper" || names.starts_with("zookeeper/") {
        return Err("must not lie in /zookeeper, which ZooKeeper keeps for itself".to_owned());
    }
    Ok(())
}

/// Whether ZooKeeper takes a character in the name of a node. It checks UTF-16, and takes no surrogates.
fn is_allowed(c: char) -> bool {
    !matches!(c, '/' | '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{e000}'..='\u{f8ff}' | '\u{fff0}'..)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_what_zookeeper_refuses_or_what_looks_encoded_is_encoded() {
        for (name, node) in [
            ("pkg.v1.Greeter", "pkg.v1.Greeter"),
            ("10.0.0.7:80-ab", "10.0.0.7:80-ab"),
            ("größe und mehr", "größe und mehr"),
            ("100%", "100%"),
            ("%FF", "%FF"),
            ("users/v1", "users%2Fv1"),
            ("users%2Fv1", "users%252Fv1"),
            (".", "%2E"),
            ("..", "%2E%2E"),
            ("...", "..."),
            ("a\u{e000}", "a%EE%80%80"),
            ("😀", "%F0%9F%98%80"),
        ] {
            assert_eq!(node_name(name), node);
            assert_eq!(name_of(node).as_deref(), Some(name));
        }
        for node in ["a%2fb", "%41"] {
            assert_eq!(name_of(node), None, "{node}");
        }
    }

    proptest! {
        #[test]
        fn every_name_is_found_again_and_its_node_is_one_that_zookeeper_takes(
            name in "[a%/2F \u{f6}._-]{1,6}|\\PC{1,9}",
        ) {
            let node = node_name(&name);
            let path = format!("/{node}");
            prop_assert!(node == "zookeeper" || check_path(&path).is_ok(), "{}", node);
            let found = name_of(&node);
            prop_assert_eq!(found.as_deref(), Some(name.as_str()));
        }
    }
}
