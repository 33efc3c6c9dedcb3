//! Reading checked text from JSON and the like.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::error::Error;

/// As serde's `try_from = "String"`, whose errors leave out which text broke which rule.
pub(crate) fn checked<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: TryFrom<String, Error = Error>,
    D: Deserializer<'de>,
{
    let text = String::deserialize(deserializer)?;
    T::try_from(text).map_err(|error| D::Error::custom(error.report()))
}

/// Reads a type by [`checked`].
macro_rules! read_checked {
    ($name:ident) => {
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(
                deserializer: D,
            ) -> std::result::Result<Self, D::Error> {
                $crate::model::checked::checked(deserializer)
            }
        }
    };
}

pub(crate) use read_checked;
