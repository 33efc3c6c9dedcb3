//! As much JSON as asking a server for its version takes.

/// The first text that a field of this name has, however deep in `json` it is. For values without escapes, as versions are.
pub(crate) fn text<'a>(json: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = json.split_once(&format!("\"{name}\""))?;
    let value = rest.trim_start().strip_prefix(':')?.trim_start();
    let (value, _) = value.strip_prefix('"')?.split_once('"')?;
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_found_by_the_whole_name_of_its_field() {
        let answer = r#"{"etcdserver" : "3.6.16","etcdcluster":"3.6.0","members":3}"#;
        assert_eq!(text(answer, "etcdserver"), Some("3.6.16"));
        assert_eq!(text(answer, "etcdcluster"), Some("3.6.0"));
        for missing in ["etcd", "members", "3.6.16"] {
            assert_eq!(text(answer, missing), None, "{missing}");
        }
        assert_eq!(text(r#"{"health":"tr"#, "health"), None);
    }
}
