//! Checking a configuration against the JSON schema that its module has sent.
//!
//! A schema comes from any process that reaches the service, so that it is read as what may be made to do harm: nothing is fetched that
//! it refers to, and a check ends after a number of steps, which all of its work spends. It knows the keywords by which the generators of
//! modules describe a type: `type`, `enum`, `const`, `properties`, `required`, `additionalProperties`, `items`, `prefixItems`, `additionalItems`, the bounds of
//! numbers, texts, lists and objects, `uniqueItems`, `allOf`, `anyOf`, `oneOf`, `not`, `if`, and `$ref` within the schema. Others, such as
//! `pattern` and `format`, are not checked.
//!
//! Source: <https://json-schema.org>, drafts 4 to 2020-12. Where these differ, `$schema` is not looked at. What stands beside `$ref` counts,
//! as since 2019-09; up to draft 7 it did not. A list in `items` is what 2020-12 calls `prefixItems`, unless there is one of those, too.
//! `exclusiveMinimum` and `exclusiveMaximum` may be numbers, or words as in draft 4.

mod checker;
mod numbers;

use std::fmt;

use sd_core::{Printable, brief};
use serde_json::Value;

use self::checker::Checker;

/// Why a configuration does not count as one of its schema.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// What is at `path` breaks a rule. Neither is a value of the configuration.
    Breaks { path: String, rule: String },
    /// The schema itself is of no use, for this reason.
    Unusable(&'static str),
}

/// Checks a configuration, both as JSON. `null` in place of a schema allows everything.
///
/// # Errors
/// The first rule that is broken, and where, or why the schema cannot be used.
pub(crate) fn check(schema: &str, config: &str) -> Result<(), Unfit> {
    let schema: Value =
        serde_json::from_str(schema).map_err(|_| Unfit::Unusable("it is nested too deeply"))?;
    if schema.is_null() {
        return Ok(());
    }
    let config: Value = serde_json::from_str(config).map_err(|_| Unfit::Breaks {
        path: String::new(),
        rule: "is nested too deeply".to_owned(),
    })?;
    Checker::new(&schema).check(&schema, &config)
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Breaks { path, rule } => {
                let path = if path.is_empty() { "it" } else { path.as_str() };
                let (path, rule) = (Printable(path), Printable(rule));
                f.write_str(&brief(format_args!("{path} {rule}")))
            }
            Self::Unusable(why) => write!(f, "the schema cannot be used: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use serde_json::json;

    use super::*;

    fn broken(schema: &Value, config: &Value) -> String {
        match check(&schema.to_string(), &config.to_string()) {
            Ok(()) => String::new(),
            Err(unfit) => unfit.to_string(),
        }
    }

    /// A schema of all rules.
    fn schema() -> Value {
        json!({
            "type": "object", "additionalProperties": false, "required": ["database"],
            "properties": {
                "database": {"$ref": "#/definitions/database"},
                "level": {"enum": ["debug", "info"]},
                "fixed": {"const": 1},
                "limits": {"type": "array", "minItems": 1, "maxItems": 3, "uniqueItems": true,
                           "items": {"type": "integer", "minimum": 1, "exclusiveMaximum": 100}},
                "pair": {"prefixItems": [{"type": "string"}], "items": {"type": "null"}},
                "tuple": {"items": [{"type": "string"}], "additionalItems": false},
                "labels": {"type": "object", "maxProperties": 2, "additionalProperties": {"type": "string"}},
                "either": {"anyOf": [{"type": "null"}, {"type": "boolean"}]},
                "one": {"oneOf": [{"minimum": 1}, {"maximum": 5}]},
                "all": {"allOf": [{"type": "number"}, {"not": {"const": 13}}]},
                "never": false,
                "dated": {"if": {"required": ["from"]}, "then": {"required": ["to"]}},
            },
            "definitions": {"database": {"type": "object", "properties": {
                "password": {"type": "string", "minLength": 2, "maxLength": 3},
                "port": {"type": ["integer", "null"]},
            }}},
        })
    }

    /// A configuration that it allows, with these fields.
    fn with(more: &Value) -> Value {
        let mut config = json!({"database": {}});
        let more = more.as_object().unwrap().clone();
        config.as_object_mut().unwrap().extend(more);
        config
    }

    #[test]
    fn each_rule_that_is_broken_is_told_with_its_place_and_without_the_value() {
        let schema = schema();
        for (config, told) in [
            (json!([]), "it is an array, where the schema wants object"),
            (json!({}), "it has no database"),
            (with(&json!({})), ""),
            (
                with(&json!({"sesame": 1})),
                "sesame is no field of the schema",
            ),
            (
                with(&json!({"database": {"password": 7}})),
                "database.password is an integer, where the schema wants string",
            ),
            (
                with(&json!({"database": {"password": "я"}})),
                "database.password is shorter than 2 characters",
            ),
            (
                with(&json!({"database": {"password": "яяяя"}})),
                "database.password is longer than 3 characters",
            ),
            (
                with(&json!({"database": {"password": "яяя", "port": 1.0}})),
                "",
            ),
            (
                with(&json!({"database": {"port": 1.5}})),
                "database.port is a number, where the schema wants integer or null",
            ),
            (
                with(&json!({"level": "hunter"})),
                "level is none of the 2 values that the schema allows",
            ),
            (with(&json!({"level": "info", "fixed": 1})), ""),
            (
                with(&json!({"fixed": 2})),
                "fixed is not the value that the schema fixes",
            ),
            (
                with(&json!({"limits": []})),
                "limits has fewer than 1 items",
            ),
            (
                with(&json!({"limits": [1, 2, 3, 4]})),
                "limits has more than 3 items",
            ),
            (
                with(&json!({"limits": [1, 2, 1]})),
                "limits has an item twice",
            ),
            (with(&json!({"limits": [1, 0]})), "limits[1] is less than 1"),
            (
                with(&json!({"limits": [1, 100]})),
                "limits[1] is not less than 100",
            ),
            (with(&json!({"limits": [99]})), ""),
            (with(&json!({"pair": ["a", null, null]})), ""),
            (
                with(&json!({"pair": ["a", null, 1]})),
                "pair[2] is an integer, where the schema wants null",
            ),
            (
                with(&json!({"tuple": ["a", 1]})),
                "tuple[1] is not allowed by the schema",
            ),
            (
                with(&json!({"labels": {"a": "b", "c": 1}})),
                "labels.c is an integer",
            ),
            (
                with(&json!({"labels": {"a": "", "b": "", "c": ""}})),
                "labels has more than 2 fields",
            ),
            (
                with(&json!({"either": "x"})),
                "either fits none of the alternatives in anyOf",
            ),
            (with(&json!({"either": true})), ""),
            (
                with(&json!({"one": 3})),
                "one fits 2 of the alternatives in oneOf",
            ),
            (with(&json!({"one": 7})), ""),
            (
                with(&json!({"all": 13})),
                "all fits what the schema excludes",
            ),
            (
                with(&json!({"never": null})),
                "never is not allowed by the schema",
            ),
            (with(&json!({"dated": {"from": 1}})), "dated has no to"),
            (with(&json!({"dated": {}})), ""),
        ] {
            let why = broken(&schema, &config);
            assert!(why.starts_with(told), "{config}: {why}");
            assert_eq!(why.is_empty(), told.is_empty(), "{config}: {why}");
            assert!(!why.contains("hunter"), "{why}");
        }
    }

    #[test]
    fn what_is_not_known_or_is_only_described_allows_everything() {
        for schema in [
            json!(null),
            json!(true),
            json!({}),
            json!({"title": "Remote config", "default": "x", "s": 1, "format": "email", "pattern": "^a$"}),
            // Names that only a pattern allows are left to the module.
            json!({"patternProperties": {"^x": {}}, "additionalProperties": false}),
        ] {
            assert_eq!(broken(&schema, &json!({"y": 1})), "", "{schema}");
        }
    }

    #[test]
    fn a_schema_that_is_none_or_refers_elsewhere_or_without_end_is_of_no_use() {
        let doubling = {
            let mut definitions = String::new();
            for nth in 0..60 {
                let next = nth + 1;
                let twice = format!(r##"{{"$ref":"#/$defs/{next}"}}"##);
                write!(definitions, r#""{nth}":{{"allOf":[{twice},{twice}]}},"#).unwrap();
            }
            let schema = format!(r##"{{"$ref":"#/$defs/0","$defs":{{{definitions}"60":true}}}}"##);
            serde_json::from_str(&schema).unwrap()
        };
        for (schema, why) in [
            (json!(7), "is no schema"),
            (json!({"properties": {"a": []}}), "is no schema"),
            (
                json!({"$ref": "http://10.0.0.1/secret"}),
                "another document",
            ),
            (json!({"$ref": "#/none"}), "that is not there"),
            (json!({"$ref": "#"}), "without end"),
            (json!({"anyOf": [{"$ref": "#"}]}), "without end"),
            (doubling, "too many steps"),
        ] {
            let told = broken(&schema, &json!({"a": 1}));
            assert!(told.starts_with("the schema cannot be used: "), "{told}");
            assert!(told.contains(why), "{schema}: {told}");
        }
        let deep = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
        assert!(check("{}", &deep).is_err() && check(&deep, "{}").is_err());
    }

    /// A schema that looks at `leaf` 1024 times.
    fn doubled(leaf: &Value, more: &Value) -> Value {
        let mut definitions = serde_json::Map::new();
        for nth in 0..10 {
            let next = json!({"$ref": format!("#/$defs/{}", nth + 1)});
            definitions.insert(nth.to_string(), json!({"allOf": [next, next]}));
        }
        definitions.insert("10".to_owned(), leaf.clone());
        json!({"$ref": "#/$defs/0", "$defs": definitions, "more": more})
    }

    #[test]
    fn everything_that_grows_with_a_schema_or_a_configuration_spends_steps() {
        let fields = (0..1000).map(|nth| (nth.to_string(), json!(nth)));
        let fields = Value::Object(fields.collect());
        let long = "x".repeat(64 * 1000);
        let mut types = vec!["x"; 1000];
        types.push("object");
        let mut nested = json!(true);
        for _ in 0..100 {
            nested = json!({ "a": nested });
        }
        let deep = json!({"$ref": format!("#/more{}", "/a".repeat(100))});
        let no_properties = json!({"properties": {}});
        let more = json!(null);
        for (what, schema) in [
            ("types", doubled(&json!({"type": types}), &more)),
            (
                "bytes of a reference",
                doubled(
                    &json!({"$ref": format!("#/more/{long}")}),
                    &json!({ &*long: true }),
                ),
            ),
            (
                "tokens of a reference",
                doubled(
                    &json!({"allOf": [deep, deep, deep, deep, deep, deep]}),
                    &nested,
                ),
            ),
            ("fields", doubled(&no_properties, &more)),
            (
                "bytes of a required name",
                doubled(&json!({"anyOf": [{"required": [long]}, true]}), &more),
            ),
            (
                "fields once more",
                json!({"allOf": vec![&no_properties; 1000]}),
            ),
        ] {
            let told = broken(&schema, &fields);
            assert!(told.contains("too many steps"), "{what}: {told:?}");
        }
        // What the schema says nothing of costs nothing.
        let items = Value::Array(vec![json!(1); 1000]);
        let schema = json!({"allOf": vec![json!({"type": ["object", "array"]}); 1000]});
        assert_eq!(broken(&schema, &fields) + &broken(&schema, &items), "");
    }

    #[test]
    fn the_rule_that_is_broken_repeats_only_the_beginning_of_what_the_schema_says() {
        let long = "x".repeat(100_000);
        for (schema, told) in [
            (json!({"required": [long]}), "has no xx"),
            (
                json!({"type": [long, "null"]}),
                "is an object, where the schema wants xx",
            ),
        ] {
            match check(&schema.to_string(), "{}") {
                Err(Unfit::Breaks { rule, .. }) => {
                    assert!(rule.starts_with(told) && rule.len() <= 256, "{rule}");
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn what_is_told_is_short_and_harmless_whatever_the_configuration_is_called() {
        let name = "\u{1b}[2J".repeat(1000);
        let why = broken(&json!({"additionalProperties": false}), &json!({ name: 1 }));
        assert!(why.len() <= 256 && !why.contains('\u{1b}'), "{why}");
    }
}
