//! Operators: what they say of other processes' records.

pub(crate) mod operator;
