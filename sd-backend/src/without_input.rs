//! What a parser says, without what it read. The messages of serde quote the input, which may hold a secret.

/// The message of an error of `serde`, `serde_json` or the like, without the parts that may come from the input. What was expected
/// stays, and so do names of fields that the reading type has. Unknown ones go.
pub fn without_input(message: &str) -> String {
    // Made of what the reading type says of itself.
    if ["missing field `", "duplicate field `"]
        .iter()
        .any(|begin| message.starts_with(begin))
    {
        return message.to_owned();
    }
    if message.starts_with("provided string was not") {
        return "is not `true` or `false`".to_owned();
    }
    let known = [
        "invalid type: ",
        "invalid value: ",
        "invalid length ",
        "unknown variant ",
        "unknown field ",
        "invalid digit found in string",
        "cannot parse integer from empty string",
        "number too large to fit in target type",
        "number too small to fit in target type",
    ];
    let Some(begin) = known.iter().find(|begin| message.starts_with(**begin)) else {
        return "it cannot be read".to_owned();
    };
    // What was found may hold anything, so only its kind is told, which stands before the first quote.
    let found = message.split(['"', '`']).next().unwrap_or(begin).trim_end();
    let found = found.trim_end_matches(',');
    match message.rsplit_once(", expected ") {
        // Without a quote the kind ends where the rest begins.
        Some((before, expected)) if before.len() <= found.len() => {
            format!("{before}, expected {expected}")
        }
        Some((_, expected)) => format!("{found}, expected {expected}"),
        None => found.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Read {
        #[expect(dead_code, reason = "only how it is refused matters")]
        count: u64,
        #[expect(dead_code, reason = "only how it is refused matters")]
        kind: Option<Kind>,
    }

    #[derive(Debug, Deserialize)]
    enum Kind {
        One,
        Two,
    }

    #[test]
    fn what_was_read_goes_and_what_was_expected_stays() {
        for (json, told) in [
            (
                r#"{"count": "sesame"}"#,
                "invalid type: string, expected u64",
            ),
            (
                r#"{"count": "a\", expected sesame, expected x"}"#,
                "invalid type: string, expected u64",
            ),
            (
                r#"{"count": 77.5}"#,
                "invalid type: floating point, expected u64",
            ),
            (r#"{"count": []}"#, "invalid type: sequence, expected u64"),
            (r#"{"kind": null}"#, "missing field `count`"),
            (
                r#"{"count": 1, "kind": "sesame`, expected `"}"#,
                "unknown variant, expected `One` or `Two`",
            ),
            (
                r#"{"count": 1, "sesame": 2}"#,
                "unknown field, expected `count` or `kind`",
            ),
        ] {
            let error = serde_json::from_str::<Read>(json).unwrap_err().to_string();
            let without = without_input(&error);
            assert!(without.starts_with(told), "{error}: {without}");
            assert!(
                !without.contains("sesame") && !without.contains("77"),
                "{without}"
            );
        }
        assert_eq!(without_input("sesame is none"), "it cannot be read");
        let _ = (Kind::One, Kind::Two);
    }
}
