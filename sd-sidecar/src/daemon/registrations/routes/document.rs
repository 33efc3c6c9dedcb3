//! What a gateway of the reference system reads of a service: the document, where it lies, and how those of several versions become one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::SystemTime;

use sd_core::Instance;
use serde::{Deserialize, Serialize};

use crate::wire::dialect::Register;
use crate::wire::{Declaration, meta, rfc3339};

/// Where the routes of one service are told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) env: String,
    pub(super) namespace: String,
    pub(super) service: String,
}

/// What is told there, as the reference system writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Document {
    service: String,
    version: String,
    updated_at: String,
    namespace: String,
    port: u16,
    protocol: String,
    /// Where calls go by the beginning of their path.
    prefixes: BTreeSet<String>,
    /// The methods.
    exact_paths: BTreeSet<String>,
}

/// What a service's folder holds, by the rest of the key. What lies there beside is none of ours.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// What all versions offer that are there.
    Current,
    /// What one version offers, by its name in the key.
    Version(String),
}

impl Place {
    /// The folder of its keys. `None` if a part would lead into that of another service.
    pub(super) fn folder(&self, prefix: &str) -> Option<String> {
        let parts = [&self.env, &self.namespace, &self.service];
        let is_name = |part: &&String| !part.is_empty() && !part.contains('/');
        let prefix = prefix.trim_matches('/');
        let [env, namespace, service] = parts;
        parts
            .iter()
            .all(is_name)
            .then(|| format!("{prefix}/{env}/{namespace}/{service}/"))
    }
}

impl Kind {
    const CURRENT: &str = "current";
    const VERSIONS: &str = "versions/";

    /// That of a version.
    pub(super) fn version(version: &str) -> Self {
        let mut name = String::new();
        for byte in version.bytes() {
            if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
                name.push(char::from(byte));
            } else {
                // Writing to a string cannot fail.
                let _ = write!(name, "%{byte:02X}");
            }
        }
        // A name cannot be empty, and none is written so.
        if name.is_empty() {
            name.push('%');
        }
        Self::Version(name)
    }

    pub(super) fn of_key(folder: &str, key: &str) -> Option<Self> {
        let rest = key.strip_prefix(folder)?;
        if rest == Self::CURRENT {
            return Some(Self::Current);
        }
        let version = rest.strip_prefix(Self::VERSIONS)?;
        let is_one = !version.is_empty() && !version.contains('/');
        is_one.then(|| Self::Version(version.to_owned()))
    }

    pub(super) fn key(&self, folder: &str) -> String {
        match self {
            Self::Current => format!("{folder}{}", Self::CURRENT),
            Self::Version(version) => format!("{folder}{}{version}", Self::VERSIONS),
        }
    }
}

impl Document {
    /// Where a registration's routes are told, and what it offers. `None` if it names no methods.
    pub(super) fn of(declaration: &Declaration, instance: &Instance) -> Option<(Place, Self)> {
        let register = Register::of(declaration);
        if register.methods.is_empty() {
            return None;
        }
        let said = |key: &str| instance.metadata().get(key).cloned();
        let place = Place {
            env: said(meta::ENV)?,
            namespace: said(meta::NAMESPACE)?,
            service: register.name.clone(),
        };
        let document = Self {
            service: register.name.clone(),
            version: instance.version().unwrap_or_default().to_owned(),
            updated_at: String::new(),
            namespace: place.namespace.clone(),
            port: instance.endpoint().port().unwrap_or_default(),
            protocol: register.protocol.clone(),
            prefixes: register.route_prefixes(),
            exact_paths: register.methods,
        };
        Some((place, document))
    }

    /// One that cannot be read says nothing.
    pub(super) fn parse(value: &[u8]) -> Option<Self> {
        serde_json::from_slice(value).ok()
    }

    pub(super) fn kind(&self) -> Kind {
        Kind::version(&self.version)
    }

    /// Offers also what `other` does.
    pub(super) fn with(mut self, other: &Self) -> Self {
        self.prefixes.extend(other.prefixes.iter().cloned());
        self.exact_paths.extend(other.exact_paths.iter().cloned());
        self
    }

    /// Whether it says what `other` does of the same service. Port and protocol may differ from host to host.
    pub(super) fn offers(&self, other: &Self) -> bool {
        (&self.service, &self.namespace) == (&other.service, &other.namespace)
            && self.prefixes.is_superset(&other.prefixes)
            && self.exact_paths.is_superset(&other.exact_paths)
    }

    /// All of several versions; the rest is as in the newest of them.
    pub(super) fn all(versions: &BTreeMap<Kind, Self>) -> Option<Self> {
        let mut newest: Vec<&Self> = versions.values().collect();
        newest.sort_by(|one, other| other.updated_at.cmp(&one.updated_at));
        let (first, others) = newest.split_first()?;
        let first = (*first).clone();
        Some(others.iter().fold(first, |all, other| all.with(other)))
    }

    /// The bytes, as of now. They differ each time: one that deletes the key sees by that that it is in use.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut now = self.clone();
        now.updated_at = rfc3339(SystemTime::now());
        // Text has a JSON form.
        serde_json::to_vec(&now).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(namespace: &str) -> Place {
        Place {
            env: "prod".to_owned(),
            namespace: namespace.to_owned(),
            service: "auth".to_owned(),
        }
    }

    #[test]
    fn keys_are_those_of_the_reference_system_and_never_another_services() {
        let folder = place("default").folder("/routes/").unwrap();
        assert_eq!(
            Kind::Current.key(&folder),
            "routes/prod/default/auth/current"
        );
        for foreign in ["", "shop/auth", "/"] {
            assert_eq!(place(foreign).folder("routes"), None);
        }
        for version in ["v1.2.0", "", "%", "a/b", "größe"] {
            let kind = Kind::version(version);
            let key = kind.key(&folder);
            assert_eq!(Kind::of_key(&folder, &key), Some(kind), "{key}");
            assert_eq!(key.matches('/').count(), 5, "{key}");
        }
        assert_ne!(Kind::version(""), Kind::version("%"));
        for other in ["versions/", "versions/a/b", "else", "current/x"] {
            assert_eq!(Kind::of_key(&folder, &format!("{folder}{other}")), None);
        }
    }

    #[test]
    fn several_versions_offer_what_each_of_them_does() {
        let document = |version: &str, at: &str, path: &str| Document {
            version: version.to_owned(),
            updated_at: at.to_owned(),
            exact_paths: [path.to_owned()].into(),
            ..Document::default()
        };
        let versions = [
            document("v1", "2026-01-02", "/a/1"),
            document("v2", "2026-01-01", "/a/2"),
        ];
        let versions: BTreeMap<_, _> = versions
            .into_iter()
            .map(|document| (document.kind(), document))
            .collect();
        let all = Document::all(&versions).unwrap();
        assert_eq!(all.version, "v1");
        assert_eq!(Vec::from_iter(&all.exact_paths), ["/a/1", "/a/2"]);
        assert_eq!(Document::all(&BTreeMap::new()), None);
        assert_eq!(Document::parse(b"none"), None);
        let read = Document::parse(&all.bytes()).unwrap();
        assert!(!read.updated_at.is_empty());
        assert_eq!(read.exact_paths, all.exact_paths);
    }
}
