//! One check, rule by rule.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt::{self, Display, Write};

use percent_encoding::percent_decode_str;
use sd_core::brief;
use serde_json::{Map, Number, Value};

use super::Unfit;
use super::numbers::{compare, is_integer};

/// References and nesting of a schema, each of which takes room on the stack.
const MOST_DEPTH: usize = 256;
/// What one check may take, during which the service does nothing else. A configuration of 100 KiB takes some thousand.
///
/// All work is paid for that grows with the schema or the configuration: each schema that is looked at, each type, field, item and name
/// that is compared, and each token of a reference is a step, and so are the bytes of a text.
const MOST_STEPS: usize = 500_000;
/// Bytes of a text that are one step.
const STEP_BYTES: usize = 64;

type Rules = Map<String, Value>;

/// A part of the way to a value.
#[derive(Clone, Copy)]
enum Part<'a> {
    Field(&'a str),
    Item(usize),
}

pub(super) struct Checker<'a> {
    root: &'a Value,
    path: Vec<Part<'a>>,
    depth: usize,
    /// How many alternatives are being tried, of which each may fail.
    trials: usize,
    steps: usize,
}

impl<'a> Checker<'a> {
    /// For the schema `root`, to which its references lead.
    pub(super) fn new(root: &'a Value) -> Self {
        Self {
            root,
            path: Vec::new(),
            depth: 0,
            trials: 0,
            steps: MOST_STEPS,
        }
    }

    /// Checks a value against a schema.
    ///
    /// # Errors
    /// As [`check`](super::check).
    pub(super) fn check(&mut self, schema: &'a Value, value: &'a Value) -> Result<(), Unfit> {
        self.spend(1)?;
        if self.depth == MOST_DEPTH {
            return Err(Unfit::Unusable(
                "it is nested too deeply, or refers to itself without end",
            ));
        }
        let rules = match schema {
            Value::Bool(true) => return Ok(()),
            Value::Bool(false) => return Err(self.broken("is not allowed by the schema")),
            Value::Object(rules) => rules,
            _ => return Err(Unfit::Unusable("a part of it is no schema")),
        };
        self.depth += 1;
        let checked = self.check_rules(rules, value);
        self.depth -= 1;
        checked
    }

    fn check_rules(&mut self, rules: &'a Rules, value: &'a Value) -> Result<(), Unfit> {
        if let Some(Value::String(reference)) = rules.get("$ref") {
            let schema = self.resolve(reference)?;
            self.check(schema, value)?;
        }
        self.check_kind(rules, value)?;
        match value {
            Value::Number(number) => self.check_number(rules, number)?,
            Value::String(text) => self.check_text(rules, text)?,
            Value::Array(items) => self.check_items(rules, items)?,
            Value::Object(fields) => self.check_fields(rules, fields)?,
            Value::Null | Value::Bool(_) => {}
        }
        self.check_alternatives(rules, value)
    }

    fn check_kind(&mut self, rules: &'a Rules, value: &Value) -> Result<(), Unfit> {
        let kinds: &[Value] = match rules.get("type") {
            Some(Value::Array(kinds)) => kinds,
            Some(kind) => std::slice::from_ref(kind),
            None => &[],
        };
        self.spend(kinds.len())?;
        let mut known = kinds.iter().filter_map(Value::as_str).peekable();
        if known.peek().is_some() && !known.any(|kind| is_of_kind(value, kind)) {
            let (found, wanted) = (kind_of(value), Kinds(kinds));
            return Err(self.broken(format_args!("is {found}, where the schema wants {wanted}")));
        }
        if let Some(Value::Array(allowed)) = rules.get("enum") {
            self.spend(allowed.iter().map(weight).sum())?;
            if !allowed.iter().any(|allowed| is_same(allowed, value)) {
                let count = allowed.len();
                return Err(self.broken(format_args!(
                    "is none of the {count} values that the schema allows"
                )));
            }
        }
        if let Some(fixed) = rules.get("const") {
            self.spend(weight(fixed))?;
            if !is_same(fixed, value) {
                return Err(self.broken("is not the value that the schema fixes"));
            }
        }
        Ok(())
    }

    fn check_number(&self, rules: &Rules, number: &Number) -> Result<(), Unfit> {
        let bound = |rule: &str| rules.get(rule).and_then(Value::as_number);
        // In draft 4, it is a word that changes the meaning of the other one.
        let excludes = |rule: &str| rules.get(rule) == Some(&Value::Bool(true));
        for (rule, is_exclusive, wrong) in [
            ("minimum", excludes("exclusiveMinimum"), Ordering::Less),
            ("maximum", excludes("exclusiveMaximum"), Ordering::Greater),
            ("exclusiveMinimum", true, Ordering::Less),
            ("exclusiveMaximum", true, Ordering::Greater),
        ] {
            let Some(bound) = bound(rule) else {
                continue;
            };
            let ordering = compare(number, bound);
            let side = if wrong == Ordering::Less {
                "less"
            } else {
                "more"
            };
            if ordering == Some(wrong) {
                return Err(self.broken(format_args!("is {side} than {bound}")));
            }
            if is_exclusive && ordering == Some(Ordering::Equal) {
                let side = if side == "less" { "more" } else { "less" };
                return Err(self.broken(format_args!("is not {side} than {bound}")));
            }
        }
        Ok(())
    }

    fn check_text(&mut self, rules: &Rules, text: &str) -> Result<(), Unfit> {
        let (least, most) = (count(rules, "minLength"), count(rules, "maxLength"));
        if least.is_none() && most.is_none() {
            return Ok(());
        }
        self.spend(text.len() / STEP_BYTES)?;
        let length = text.chars().count();
        match (least, most) {
            (Some(least), _) if length < least => {
                Err(self.broken(format_args!("is shorter than {least} characters")))
            }
            (_, Some(most)) if length > most => {
                Err(self.broken(format_args!("is longer than {most} characters")))
            }
            _ => Ok(()),
        }
    }

    fn check_items(&mut self, rules: &'a Rules, items: &'a [Value]) -> Result<(), Unfit> {
        self.check_count(rules, items.len(), ("minItems", "maxItems"), "items")?;
        if rules.get("uniqueItems") == Some(&Value::Bool(true)) {
            self.spend(items.iter().map(weight).sum())?;
            let mut seen = HashSet::new();
            if !items.iter().all(|item| seen.insert(item.to_string())) {
                return Err(self.broken("has an item twice"));
            }
        }
        let (first, rest) = match (rules.get("prefixItems"), rules.get("items")) {
            (Some(Value::Array(first)), rest) => (&first[..], rest),
            (_, Some(Value::Array(first))) => (&first[..], rules.get("additionalItems")),
            (_, rest) => (&[][..], rest),
        };
        for (at, item) in items.iter().enumerate() {
            let Some(schema) = first.get(at).or(rest) else {
                break;
            };
            self.check_part(Part::Item(at), schema, item)?;
        }
        Ok(())
    }

    fn check_fields(&mut self, rules: &'a Rules, fields: &'a Rules) -> Result<(), Unfit> {
        let bounds = ("minProperties", "maxProperties");
        self.check_count(rules, fields.len(), bounds, "fields")?;
        if let Some(Value::Array(required)) = rules.get("required") {
            self.spend(required.len())?;
            for name in required.iter().filter_map(Value::as_str) {
                self.spend(name.len() / STEP_BYTES)?;
                if !fields.contains_key(name) {
                    return Err(self.broken(format_args!("has no {name}")));
                }
            }
        }
        let known = rules.get("properties").and_then(Value::as_object);
        // Which names a pattern allows is not looked at.
        let has_patterns = rules.contains_key("patternProperties");
        let others = rules.get("additionalProperties").filter(|_| !has_patterns);
        if known.is_none() && others.is_none() {
            return Ok(());
        }
        for (name, field) in fields {
            self.spend(1 + name.len() / STEP_BYTES)?;
            let part = Part::Field(name);
            match (known.and_then(|known| known.get(name)), others) {
                (None, Some(Value::Bool(false))) => {
                    self.path.push(part);
                    return Err(self.broken("is no field of the schema"));
                }
                (Some(schema), _) | (None, Some(schema)) => {
                    self.check_part(part, schema, field)?;
                }
                (None, None) => {}
            }
        }
        Ok(())
    }

    fn check_part(
        &mut self,
        part: Part<'a>,
        schema: &'a Value,
        value: &'a Value,
    ) -> Result<(), Unfit> {
        self.path.push(part);
        let checked = self.check(schema, value);
        self.path.pop();
        checked
    }

    fn check_alternatives(&mut self, rules: &'a Rules, value: &'a Value) -> Result<(), Unfit> {
        for schema in listed(rules, "allOf") {
            self.check(schema, value)?;
        }
        if rules.contains_key("anyOf") {
            let mut is_one = false;
            for schema in listed(rules, "anyOf") {
                if self.fits(schema, value)? {
                    is_one = true;
                    break;
                }
            }
            if !is_one {
                return Err(self.broken("fits none of the alternatives in anyOf"));
            }
        }
        if rules.contains_key("oneOf") {
            let mut fitting = 0;
            for schema in listed(rules, "oneOf") {
                fitting += usize::from(self.fits(schema, value)?);
            }
            if fitting != 1 {
                return Err(
                    self.broken(format_args!("fits {fitting} of the alternatives in oneOf"))
                );
            }
        }
        if let Some(excluded) = rules.get("not")
            && self.fits(excluded, value)?
        {
            return Err(self.broken("fits what the schema excludes"));
        }
        if let Some(condition) = rules.get("if") {
            let then = if self.fits(condition, value)? {
                "then"
            } else {
                "else"
            };
            if let Some(schema) = rules.get(then) {
                self.check(schema, value)?;
            }
        }
        Ok(())
    }

    /// Whether a value fits, where that it does not is no failure.
    fn fits(&mut self, schema: &'a Value, value: &'a Value) -> Result<bool, Unfit> {
        let path = self.path.len();
        self.trials += 1;
        let checked = self.check(schema, value);
        self.trials -= 1;
        match checked {
            Ok(()) => Ok(true),
            Err(Unfit::Breaks { .. }) => {
                self.path.truncate(path);
                Ok(false)
            }
            Err(unusable) => Err(unusable),
        }
    }

    fn check_count(
        &self,
        rules: &Rules,
        found: usize,
        (least, most): (&str, &str),
        what: &str,
    ) -> Result<(), Unfit> {
        match (count(rules, least), count(rules, most)) {
            (Some(least), _) if found < least => {
                Err(self.broken(format_args!("has fewer than {least} {what}")))
            }
            (_, Some(most)) if found > most => {
                Err(self.broken(format_args!("has more than {most} {what}")))
            }
            _ => Ok(()),
        }
    }

    /// The part of the schema to which a reference leads.
    fn resolve(&mut self, reference: &str) -> Result<&'a Value, Unfit> {
        let Some(pointer) = reference.strip_prefix('#') else {
            return Err(Unfit::Unusable("it refers to another document"));
        };
        self.spend(pointer.len() / STEP_BYTES)?;
        let pointer = percent_decode_str(pointer).decode_utf8_lossy();
        self.spend(pointer.matches('/').count())?;
        let found = self.root.pointer(&pointer);
        found.ok_or(Unfit::Unusable("it refers to a part that is not there"))
    }

    fn spend(&mut self, steps: usize) -> Result<(), Unfit> {
        let left = self.steps.checked_sub(steps);
        self.steps = left.ok_or(Unfit::Unusable("it takes too many steps to check"))?;
        Ok(())
    }

    /// What is told of a rule that the value at this place breaks. Nothing of it is written where an alternative fails, which no one is told.
    fn broken(&self, rule: impl Display) -> Unfit {
        let mut path = String::new();
        if self.trials > 0 {
            return Unfit::Breaks {
                path,
                rule: String::new(),
            };
        }
        for part in &self.path {
            // Writing into a text does not fail.
            let _ = match part {
                Part::Field(name) if path.is_empty() => write!(path, "{name}"),
                Part::Field(name) => write!(path, ".{name}"),
                Part::Item(at) => write!(path, "[{at}]"),
            };
        }
        Unfit::Breaks {
            path,
            rule: brief(rule),
        }
    }
}

/// The types that a schema allows.
struct Kinds<'a>(&'a [Value]);

impl Display for Kinds<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, kind) in self.0.iter().filter_map(Value::as_str).enumerate() {
            if nth > 0 {
                f.write_str(" or ")?;
            }
            f.write_str(kind)?;
        }
        Ok(())
    }
}

fn listed<'a>(rules: &'a Rules, rule: &str) -> &'a [Value] {
    let listed = rules.get(rule).and_then(Value::as_array);
    listed.map_or(&[], Vec::as_slice)
}

fn count(rules: &Rules, rule: &str) -> Option<usize> {
    let bound = rules.get(rule).and_then(Value::as_u64)?;
    usize::try_from(bound).ok()
}

/// The steps that it takes to look at all of a value.
fn weight(value: &Value) -> usize {
    1 + match value {
        Value::String(text) => text.len() / STEP_BYTES,
        Value::Array(items) => items.iter().map(weight).sum(),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, field)| name.len() / STEP_BYTES + weight(field))
            .sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

/// Numbers are the same however they are written.
fn is_same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => compare(one, other) == Some(Ordering::Equal),
        _ => one == other,
    }
}

fn is_of_kind(value: &Value, kind: &str) -> bool {
    match value {
        Value::Null => kind == "null",
        Value::Bool(_) => kind == "boolean",
        Value::Number(number) => kind == "number" || (kind == "integer" && is_integer(number)),
        Value::String(_) => kind == "string",
        Value::Array(_) => kind == "array",
        Value::Object(_) => kind == "object",
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if is_integer(number) => "an integer",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
