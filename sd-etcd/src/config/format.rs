//! The forms of a stored record.

use serde::Deserialize;

/// How records are stored. [`Json`](Self::Json) and [`GoKit`](Self::GoKit) are both read where either is set, even side by side in one
/// service. The others are of programs of other projects, and read only: nothing else is read beside them, and a registry over them can
/// neither register nor change records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Format {
    /// The JSON form of an [`Instance`](sd_core::Instance), with all its fields.
    #[default]
    Json,
    /// go-kit's plain value, `scheme://host:port`: an address and nothing else.
    GoKit,
    /// Read only: what etcd's own resolver for gRPC stores, `{"Op":0,"Addr":"host:port","Metadata":…}` under
    /// `<prefix>/<service>/<anything>`.
    Resolver,
    /// Read only: what kratos stores under `<namespace>/<service>/<id>`. Of several endpoints that of gRPC is taken, or else the first.
    Kratos,
    /// Read only: the nodes of the upstreams that APISIX stores under `/apisix/upstreams/<id>`, each a service named by its id.
    Apisix,
    /// Read only: what go-micro stores under `/micro/registry/<service>/<node>`.
    GoMicro,
}

impl Format {
    /// Whether one key holds all instances of a service.
    pub(crate) fn has_one_key(self) -> bool {
        matches!(self, Self::Apisix)
    }

    /// Whether records in this format are another project's, which are only read.
    pub(crate) fn is_read_only(self) -> bool {
        !matches!(self, Self::Json | Self::GoKit)
    }
}
