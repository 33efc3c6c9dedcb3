//! Local values in place of those that the service keeps.

use serde_json::Value;

/// Puts what `over` says in place of what `base` says: objects are merged, and everything else replaces, also a list and `null`.
pub(crate) fn merge(base: &mut Value, over: &Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (name, over) in over {
                merge(base.entry(name.clone()).or_insert(Value::Null), over);
            }
        }
        (base, over) => base.clone_from(over),
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
            merge(&mut value, &over);
            assert_eq!(value, merged);
        }
    }
}
