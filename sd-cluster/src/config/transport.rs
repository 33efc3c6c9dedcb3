//! How modules are called.

use serde::Deserialize;

/// How a module is called, as it says in its declaration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// Over gRPC.
    #[default]
    Grpc,
    /// Over HTTP.
    Http,
    /// Not at all.
    Empty,
}

impl Transport {
    /// The one that declarations call so.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let all = [Self::Grpc, Self::Http, Self::Empty];
        all.into_iter().find(|one| one.as_str() == name)
    }

    /// As it is written in declarations.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Http => "http",
            Self::Empty => "empty",
        }
    }
}
