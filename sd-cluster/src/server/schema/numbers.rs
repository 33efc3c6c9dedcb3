//! Comparing numbers of JSON without loss.

use std::cmp::Ordering;

use serde_json::Number;

/// How two numbers stand to each other.
pub(super) fn compare(one: &Number, other: &Number) -> Option<Ordering> {
    match (one.as_i128(), other.as_i128()) {
        (Some(one), Some(other)) => Some(one.cmp(&other)),
        _ => one.as_f64()?.partial_cmp(&other.as_f64()?),
    }
}

/// Whether a number is whole, however it is written.
pub(super) fn is_integer(number: &Number) -> bool {
    number.as_i128().is_some() || number.as_f64().is_some_and(|float| float.fract() == 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_integers_are_told_apart_and_a_whole_float_is_an_integer() {
        let number = |text: &str| serde_json::from_str::<Number>(text).unwrap();
        for (one, other, ordering) in [
            ("9007199254740993", "9007199254740992", Ordering::Greater),
            ("18446744073709551615", "-1", Ordering::Greater),
            ("1", "1.0", Ordering::Equal),
            ("1.5", "2", Ordering::Less),
        ] {
            assert_eq!(compare(&number(one), &number(other)), Some(ordering));
        }
        assert!(is_integer(&number("1.0")) && is_integer(&number("-7")));
        assert!(!is_integer(&number("1.5")));
    }
}
