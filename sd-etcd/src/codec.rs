//! Between an [`Instance`] and what is stored in etcd: keys and values. Pure functions.
//!
//! A record is kept under `<prefix>/<service>/<id>`. Its value is our JSON, or go-kit's plain `scheme://host:port`. In the key of
//! a plain value, names stand as they are, slashes included, as go-kit writes them; in the key of our JSON, [`names`] says how. What an
//! operator says of a record lies beside it: see [`overrides`].

pub(crate) mod apisix;
#[cfg(test)]
mod frozen;
#[cfg(test)]
mod golden;
pub(crate) mod json;
pub(crate) mod names;
pub(crate) mod others;
pub(crate) mod overrides;

use std::borrow::Cow;

use etcd_client::KeyValue;
use sd_backend::{Record, gokit};
use sd_core::{Error, ErrorKind, Incarnation, Instance, InstanceId, RecordId, ServiceName};

use crate::codec::names::{id_suffix, service_of, service_segment};
use crate::codec::others::go_micro_segment;
use crate::config::format::Format;

/// Where records are and how they are written.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    prefix: String,
    format: Format,
}

/// What etcd says about a key besides its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) lease: i64,
    pub(crate) create_revision: i64,
}

impl From<&KeyValue> for Origin {
    fn from(entry: &KeyValue) -> Self {
        Self {
            lease: entry.lease(),
            create_revision: entry.create_revision(),
        }
    }
}

impl Origin {
    /// The run that wrote a record which does not say so itself: go-kit takes a new lease for each. A key that was put by hand has
    /// none.
    pub(crate) fn run(self) -> Incarnation {
        let run = if self.lease == 0 {
            self.create_revision
        } else {
            self.lease
        };
        Incarnation::from_u64(run.cast_unsigned())
    }
}

impl Layout {
    pub(crate) fn new(prefix: &str, format: Format) -> Self {
        Self {
            prefix: prefix.to_owned(),
            format,
        }
    }

    /// The key of a record.
    pub(crate) fn key(&self, service: &ServiceName, id: &InstanceId) -> String {
        let segment = match self.format {
            Format::Json => service_segment(service),
            Format::GoMicro => go_micro_segment(service.as_str()).into(),
            Format::Apisix => return format!("{}/{service}", self.prefix),
            Format::GoKit | Format::Resolver | Format::Kratos => service.as_str().into(),
        };
        format!("{}/{segment}/{}", self.prefix, self.suffix(id))
    }

    /// Where a record may be: where we would write it, and where go-kit would.
    pub(crate) fn keys(&self, service: &ServiceName, id: &InstanceId) -> Vec<String> {
        let folders = self.folders(service);
        let plain = folders.plain.as_ref().unwrap_or(&folders.ours);
        let mut keys = vec![
            format!("{}{}", folders.ours, id_suffix(id)),
            format!("{plain}{id}"),
        ];
        keys.dedup();
        keys
    }

    /// The key of what an operator says of a record of ours. `None` in go-kit's layout, where everything is taken for an address.
    pub(crate) fn override_key(&self, service: &ServiceName, id: &InstanceId) -> Option<String> {
        let (folder, _) = self.folders(service).ours();
        let suffix = overrides::suffix(&id_suffix(id));
        (self.format == Format::Json).then(|| format!("{folder}{suffix}"))
    }

    /// How the key of a record ends, after the folder of its service.
    pub(crate) fn suffix<'a>(&self, id: &'a InstanceId) -> Cow<'a, str> {
        match self.format {
            Format::Json => id_suffix(id),
            Format::GoKit
            | Format::Resolver
            | Format::Kratos
            | Format::GoMicro
            | Format::Apisix => id.as_str().into(),
        }
    }

    /// What is stored under the key of a record, or why it cannot be understood.
    pub(crate) fn stored_in(&self, found: &KeyValue, record: &RecordId) -> Result<Record, String> {
        let suffix = self.suffix(&record.id);
        decode(&record.service, &suffix, found.value(), found.into())
    }

    /// The range of all records of all services, end excluded.
    pub(crate) fn all(&self) -> (String, String) {
        below(&format!("{}/", self.prefix))
    }

    /// Where the records of a service are.
    pub(crate) fn folders(&self, service: &ServiceName) -> Folders {
        let folder = |name: &str| format!("{}/{name}/", self.prefix);
        if self.is_read_only() {
            let ours = match self.format {
                Format::GoMicro => folder(&go_micro_segment(service.as_str())),
                Format::Apisix => format!("{}/{service}", self.prefix),
                _ => folder(service.as_str()),
            };
            return Folders {
                ours,
                plain: None,
                format: self.format,
            };
        }
        let (ours, plain) = (folder(&service_segment(service)), folder(service.as_str()));
        Folders {
            plain: (plain != ours).then_some(plain),
            ours,
            format: self.format,
        }
    }

    /// Whether records here are another project's, which are only read.
    pub(crate) fn is_read_only(&self) -> bool {
        self.format.is_read_only()
    }

    /// Whether one key holds all instances of a service.
    pub(crate) fn has_one_key(&self) -> bool {
        self.format.has_one_key()
    }

    /// Whether APISIX keeps something under this key so that its folder is there.
    pub(crate) fn is_placeholder(&self, key: &[u8]) -> bool {
        self.has_one_key() && key == self.all().0.as_bytes()
    }

    /// The service whose record is kept under this key. `None` if it is not a key of ours: other programs' may lie here, too.
    pub(crate) fn service_of(&self, key: &[u8]) -> Option<ServiceName> {
        let below = key.strip_prefix(self.prefix.as_bytes())?;
        let below = below.strip_prefix(b"/")?;
        if self.has_one_key() {
            return ServiceName::new(std::str::from_utf8(below).ok()?).ok();
        }
        let end = below.iter().position(|byte| *byte == b'/')?;
        self.service_of_folder(below.get(..end)?)
    }

    /// The service whose records are in the folder of this name.
    pub(crate) fn service_of_folder(&self, name: &[u8]) -> Option<ServiceName> {
        let name = std::str::from_utf8(name).ok()?;
        if self.is_read_only() {
            return ServiceName::new(name).ok();
        }
        service_of(name)
    }

    /// The value of a record.
    ///
    /// # Errors
    /// `InvalidInput` if the instance cannot be written.
    pub(crate) fn encode(&self, op: &'static str, instance: &Instance) -> sd_core::Result<Vec<u8>> {
        match self.format {
            Format::Json => serde_json::to_vec(instance)
                .map_err(|error| Error::new(ErrorKind::InvalidInput, op).with_source(error)),
            Format::GoKit => Ok(gokit::encode(instance).into_bytes()),
            Format::Resolver | Format::Kratos | Format::GoMicro | Format::Apisix => {
                Err(Error::new(ErrorKind::Unsupported, op)
                    .because("records in this format are only read"))
            }
        }
    }
}

/// Where the records of one service are: one folder, unless go-kit would write its name in another way than we do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Folders {
    ours: String,
    /// Where go-kit would write. There may be records of ours of other services: those of `a` with the id `b/c` are in the folder
    /// of go-kit's `a/b`.
    plain: Option<String>,
    format: Format,
}

/// Where a record is within the folders of its service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place<'a> {
    pub(crate) is_ours: bool,
    pub(crate) suffix: &'a str,
}

impl Folders {
    /// The keys in our folder, end excluded.
    pub(crate) fn ours(&self) -> (String, String) {
        if self.has_one_key() {
            return (self.ours.clone(), format!("{}\0", self.ours));
        }
        below(&self.ours)
    }

    /// Whether there is no folder, but one key that holds all instances.
    pub(crate) fn has_one_key(&self) -> bool {
        self.format.has_one_key()
    }

    /// The keys in the folder for plain values alone, end excluded.
    pub(crate) fn plain(&self) -> Option<(String, String)> {
        self.plain.as_deref().map(below)
    }

    /// Where a key is; `None` if it is in none of the folders, or not text.
    pub(crate) fn place<'a>(&self, key: &'a [u8]) -> Option<Place<'a>> {
        let key = std::str::from_utf8(key).ok()?;
        let within = |folder: Option<&String>, is_ours| {
            let suffix = key.strip_prefix(folder?.as_str())?;
            Some(Place { is_ours, suffix })
        };
        within(Some(&self.ours), true).or_else(|| within(self.plain.as_ref(), false))
    }

    /// What `value` says, stored in this place for `service`. An error says why it cannot be understood.
    pub(crate) fn decode(
        &self,
        service: &ServiceName,
        place: Place<'_>,
        value: &[u8],
        origin: Origin,
    ) -> Result<Record, String> {
        if self.format.is_read_only() {
            let read = others::decode(self.format, service, place.suffix, value, origin.run());
            return read.map(Record::Live);
        }
        decode(service, place.suffix, value, origin)
    }

    /// How the key of the record ends that an override in this place would be about.
    pub(crate) fn overridden<'a>(&self, place: Place<'a>) -> Option<&'a str> {
        let may_be = place.is_ours && !self.format.is_read_only();
        overrides::record_suffix(place.suffix).filter(|_| may_be)
    }

    /// The key of a place.
    pub(crate) fn key(&self, place: Place<'_>) -> String {
        let plain = self.plain.as_ref().filter(|_| !place.is_ours);
        format!("{}{}", plain.unwrap_or(&self.ours), place.suffix)
    }

    /// Whether a value in this place is not of this service.
    pub(crate) fn is_foreign(place: Place<'_>, value: &[u8]) -> bool {
        !place.is_ours && is_json(value)
    }
}

/// Everything in a folder, whose name ends with a slash: up to the byte after the slash.
fn below(folder: &str) -> (String, String) {
    let end = format!("{}0", folder.strip_suffix('/').unwrap_or(folder));
    (folder.to_owned(), end)
}

pub(crate) fn is_json(value: &[u8]) -> bool {
    value.trim_ascii_start().starts_with(b"{")
}

/// What `value` says, stored for `service` under a key that ends with `suffix`. An error says why it cannot be understood.
pub(crate) fn decode(
    service: &ServiceName,
    suffix: &str,
    value: &[u8],
    origin: Origin,
) -> Result<Record, String> {
    if !is_json(value) {
        return gokit::decode(service, suffix, value, origin.run()).map(Record::Live);
    }
    let (instance, withdrawn) = json::decode(value)?;
    if instance.service() != service || id_suffix(instance.id()) != suffix {
        return Err(format!(
            "the value is the record of instance {:?} of service {:?}, stored under the wrong key",
            instance.id(),
            instance.service()
        ));
    }
    Ok(Record::new(instance, withdrawn))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec::json::encode_withdrawn;
    use sd_backend::gokit::{PATH, SCHEME};

    const ORIGIN: Origin = Origin {
        lease: 7,
        create_revision: 3,
    };

    fn service() -> ServiceName {
        ServiceName::new("greeter").unwrap()
    }

    fn instance(id: &str, address: &str) -> Instance {
        Instance::new("greeter", address)
            .unwrap()
            .with_id(InstanceId::new(id).unwrap())
    }

    #[test]
    fn keys_lie_below_their_service_and_no_other() {
        let layout = Layout::new("/services", Format::Json);
        let folders = layout.folders(&service());
        assert_eq!(folders.plain(), None);
        let (from, to) = folders.ours();
        let key = layout.key(&service(), &InstanceId::new("http://h:1").unwrap());
        assert_eq!(key, "/services/greeter/http://h:1");
        assert!(from <= key && key < to);
        for other in [
            "/services/greeter2/a",
            "/services/greete/a",
            "/services/greeter-2/a",
        ] {
            assert!(!(from.as_str() <= other && other < to.as_str()), "{other}");
        }
    }

    #[test]
    fn a_name_that_go_kit_writes_differently_has_a_folder_for_plain_values_alone() {
        let service = ServiceName::new("a/b").unwrap();
        let folders = Layout::new("/p", Format::Json).folders(&service);
        assert_eq!(folders.ours().0, "/p/a%2Fb/");
        assert_eq!(folders.plain().unwrap().0, "/p/a/b/");
        for format in [Format::Json, Format::GoKit] {
            let key = Layout::new("/p", format).key(&service, &InstanceId::new("i").unwrap());
            let place = folders.place(key.as_bytes()).unwrap();
            assert_eq!(place.suffix, "i");
            assert!(!Folders::is_foreign(place, b"http://h:1"));
            // Our record there is that of `b/i` of the service `a`.
            let is_plain = format == Format::GoKit;
            assert_eq!(Folders::is_foreign(place, b" {}"), is_plain);
        }
        assert_eq!(folders.place(b"/p/a/c"), None);
        assert_eq!(folders.place(b"/p/a/b/\xff"), None);
    }

    #[test]
    fn go_kits_values_are_read_as_go_kit_means_them() {
        for (value, address, scheme, path) in [
            ("http://1.2.3.4:8080", "1.2.3.4:8080", Some("http"), None),
            ("1.2.3.4:8080", "1.2.3.4:8080", None, None),
            (
                "https://h/api?x#y",
                "h:443",
                Some("https"),
                Some("/api?x#y"),
            ),
            (
                "grpc://[::1]:50051/",
                "[::1]:50051",
                Some("grpc"),
                Some("/"),
            ),
            ("  h:1\n", "h:1", None, None),
        ] {
            let Record::Live(read) = decode(&service(), "k", value.as_bytes(), ORIGIN).unwrap()
            else {
                panic!("{value} is not withdrawn");
            };
            assert_eq!(read.endpoint().to_string(), address);
            assert_eq!(read.metadata().get(SCHEME).map(String::as_str), scheme);
            assert_eq!(read.metadata().get(PATH).map(String::as_str), path);
            assert_eq!(read.incarnation(), Incarnation::from_u64(7));
        }
    }

    #[test]
    fn what_is_no_record_is_refused_with_a_reason() {
        let misplaced = serde_json::to_vec(&instance("other", "h:1")).unwrap();
        for (value, reason) in [
            (&b"hello"[..], "no port"),
            (b"", "no port"),
            (b"{}", "missing field"),
            (b"{", "EOF"),
            (b"\xff\xfe", "neither JSON nor text"),
            (b"http://user:password@h:1", "user name"),
            (b"h:0", "port"),
            (&misplaced, "wrong key"),
        ] {
            let error = decode(&service(), "k", value, ORIGIN).unwrap_err();
            assert!(error.contains(reason), "{error}");
            assert!(!error.contains("password"), "{error}");
        }
    }

    #[test]
    fn a_withdrawn_record_is_recognised_and_looks_unready_to_others() {
        let stored = encode_withdrawn(&instance("k", "h:1")).unwrap();
        let read = decode(&service(), "k", &stored, ORIGIN).unwrap();
        assert!(matches!(read, Record::Withdrawn(_)));
        let plain: Instance = serde_json::from_slice(&stored).unwrap();
        assert!(!plain.is_ready());
    }

    #[test]
    fn go_kit_reads_what_we_write_for_it() {
        let layout = Layout::new("/services", Format::GoKit);
        let written = |instance: &Instance| {
            String::from_utf8(layout.encode("test", instance).unwrap()).unwrap()
        };
        let here = instance("k", "1.2.3.4:8080");
        assert_eq!(written(&here), "http://1.2.3.4:8080");
        let bare = here.clone().with_metadata(SCHEME, "");
        assert_eq!(written(&bare), "1.2.3.4:8080");
        let full = here
            .with_metadata(SCHEME, "https")
            .with_metadata(PATH, "/api");
        assert_eq!(written(&full), "https://1.2.3.4:8080/api");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(id in "\\PC{0,20}", value in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = decode(&service(), &id, &value, ORIGIN);
        }

        #[test]
        fn any_text_is_read_or_refused(value in "([a-z]{0,5}://)?\\PC{0,40}(:[0-9]{0,6})?(/\\PC{0,9})?") {
            let _ = decode(&service(), "k", value.as_bytes(), ORIGIN);
        }

        #[test]
        fn what_is_written_is_read_again(
            service in "\\PC{1,9}", id in "\\PC{1,9}", port in 1..u16::MAX, weight: u16, ready: bool, tag in "\\PC{0,9}",
            value in "\\PC{0,9}",
        ) {
            let (service, id) = (ServiceName::new(service), InstanceId::new(id));
            prop_assume!(service.is_ok() && id.is_ok());
            let instance = Instance::new(service.unwrap(), format!("h:{port}")).unwrap()
                .with_id(id.unwrap())
                .with_weight(weight)
                .with_ready(ready)
                .with_tag(tag)
                .with_metadata("key", value);
            let layout = Layout::new("/p", Format::Json);
            let stored = layout.encode("test", &instance).unwrap();
            let key = layout.key(instance.service(), instance.id());
            let place = layout.folders(instance.service()).place(key.as_bytes()).unwrap();
            prop_assert!(!Folders::is_foreign(place, &stored));
            let read = decode(instance.service(), place.suffix, &stored, ORIGIN);
            prop_assert_eq!(read, Ok(Record::Live(instance)));
        }
    }
}
