//! Local values in place of those that the service keeps.

use serde_json::Value;

/// What becomes of lists, and of values of different kinds, where both sides say something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Merging {
    /// The local value replaces the other one, also where it is a list or `null`.
    Replacing,
    /// As isp-kit merges the leaves of both sides: lists item by item, nothing that is empty changes anything, and a scalar stays
    /// where the local value is an object or a list.
    AsGo,
}

impl Merging {
    /// Puts what `over` says in place of what `base` says. Objects are merged.
    pub(crate) fn merge(self, base: &mut Value, over: &Value) {
        match (base, over) {
            (Value::Object(base), Value::Object(over)) => {
                for (name, over) in over {
                    match base.get_mut(name) {
                        Some(base) => self.merge(base, over),
                        None => drop(base.insert(name.clone(), over.clone())),
                    }
                }
            }
            (base, over) if self == Self::Replacing => base.clone_from(over),
            (_, Value::Object(over)) if over.is_empty() => {}
            (_, Value::Array(over)) if over.is_empty() => {}
            (Value::Array(base), Value::Array(over)) => {
                for (at, over) in over.iter().enumerate() {
                    match base.get_mut(at) {
                        Some(base) => self.merge(base, over),
                        None => base.push(over.clone()),
                    }
                }
            }
            (Value::Bool(_) | Value::Number(_) | Value::String(_), over)
                if over.is_object() || over.is_array() => {}
            (base, over) => base.clone_from(over),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_are_merged_and_all_else_is_replaced() {
        for (base, over, merged) in [
            (
                json!({"a":{"a":2},"b":2}),
                json!({"a":{"a":1}}),
                json!({"a":{"a":1},"b":2}),
            ),
            (json!({"l":[1,2,3]}), json!({"l":[9]}), json!({"l":[9]})),
            (json!({"l":[1]}), json!({"l":[]}), json!({"l":[]})),
            (
                json!({"e":[],"o":{},"n":null}),
                json!({}),
                json!({"e":[],"o":{},"n":null}),
            ),
            (json!({"a":1}), json!({"a":{"b":2}}), json!({"a":{"b":2}})),
            (json!({"a":{"b":2}}), json!({"a":1}), json!({"a":1})),
            (json!({"a":{"b":2}}), json!({"a":null}), json!({"a":null})),
            (
                json!({"a":{"b":2}}),
                json!({"a~b":7}),
                json!({"a":{"b":2},"a~b":7}),
            ),
            (
                json!({"x[0]":1,"a.b":1}),
                json!({"a.b":2}),
                json!({"x[0]":1,"a.b":2}),
            ),
            (
                json!({"big":9_007_199_254_740_993_u64}),
                json!({}),
                json!({"big":9_007_199_254_740_993_u64}),
            ),
        ] {
            let mut value = base;
            Merging::Replacing.merge(&mut value, &over);
            assert_eq!(value, merged);
        }
    }

    /// What a module in Go made of each of these, where that is the same each time.
    #[test]
    fn lists_are_merged_item_by_item_as_in_go_if_wanted() {
        for (base, over, merged) in [
            (
                json!({"a":{"a":2},"b":2}),
                json!({"a":{"a":1}}),
                json!({"a":{"a":1},"b":2}),
            ),
            (json!({"l":[1,2,3]}), json!({"l":[9]}), json!({"l":[9,2,3]})),
            (json!({"l":[1]}), json!({"l":[2,3]}), json!({"l":[2,3]})),
            (
                json!({"l":[{"a":1,"b":2}]}),
                json!({"l":[{"b":3}]}),
                json!({"l":[{"a":1,"b":3}]}),
            ),
            (json!({"l":[1]}), json!({"l":[]}), json!({"l":[1]})),
            (json!({"o":{"a":1}}), json!({"o":{}}), json!({"o":{"a":1}})),
            (json!({"a":1}), json!({"a":{"b":2}}), json!({"a":1})),
            (json!({"a":{"b":2}}), json!({"a":1}), json!({"a":1})),
            (
                json!({"a":"b"}),
                json!({"a.b":2,"c":null}),
                json!({"a":"b","a.b":2,"c":null}),
            ),
        ] {
            let mut value = base;
            Merging::AsGo.merge(&mut value, &over);
            assert_eq!(value, merged);
        }
    }
}
