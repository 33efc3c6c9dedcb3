//! Names as parts of our own keys. Pure functions.
//!
//! What every version takes as a name is written as it is. A service's name that earlier versions refuse is percent-encoded: it
//! then holds no slash. So is an id that they refuse, after a slash, since ids that they accept may hold a percent sign but begin
//! with no slash. So no two names share a key.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sd_core::{InstanceId, ServiceName};

/// All but what every version takes in the name of a service.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

/// A service's name as one segment of a key.
pub(crate) fn service_segment(service: &ServiceName) -> Cow<'_, str> {
    utf8_percent_encode(service.as_str(), ENCODED).into()
}

/// The service whose segment of a key this is. Another program may have written a name there in its own way.
pub(crate) fn service_of(segment: &str) -> Option<ServiceName> {
    let decoded = percent_decode_str(segment).decode_utf8();
    let service = decoded.ok().and_then(|name| ServiceName::new(name).ok());
    service
        .filter(|service| service_segment(service) == segment)
        .or_else(|| ServiceName::new(segment).ok())
}

/// An id as the end of a key.
pub(crate) fn id_suffix(id: &InstanceId) -> Cow<'_, str> {
    let id = id.as_str();
    let is_plain = !id.starts_with('/') && !id.ends_with('/') && !id.contains(char::is_whitespace);
    if is_plain {
        return Cow::Borrowed(id);
    }
    Cow::Owned(format!("/{}", utf8_percent_encode(id, ENCODED)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As the first version checked it.
    fn was_a_service(name: &str) -> bool {
        let is_word = |c: char| c.is_ascii_alphanumeric();
        name.chars().all(|c| is_word(c) || "-_.".contains(c))
            && name.starts_with(is_word)
            && name.ends_with(is_word)
    }

    fn was_an_id(id: &str) -> bool {
        !id.contains(|c: char| c.is_whitespace() || c.is_control())
            && !id.starts_with('/')
            && !id.ends_with('/')
    }

    #[test]
    fn only_what_earlier_versions_refuse_is_encoded() {
        for (name, written) in [
            ("pkg.v1.Greeter", "pkg.v1.Greeter"),
            ("_udp.web", "_udp.web"),
            ("users/v1", "users%2Fv1"),
            ("users%2Fv1", "users%252Fv1"),
            ("größe", "gr%C3%B6%C3%9Fe"),
            ("two words", "two%20words"),
        ] {
            let service = ServiceName::new(name).unwrap();
            assert_eq!(service_segment(&service), written);
            assert_eq!(service_of(written), Some(service));
        }
        for (id, written) in [
            ("http://h:1", "http://h:1"),
            ("a%20b", "a%20b"),
            ("größe", "größe"),
            ("a b", "/a%20b"),
            ("/a", "/%2Fa"),
            ("a/", "/a%2F"),
        ] {
            let id = InstanceId::new(id).unwrap();
            assert_eq!(id_suffix(&id), written);
        }
    }

    #[test]
    fn a_segment_that_another_program_wrote_is_a_name_as_it_is() {
        for segment in ["größe", "two words", "a%2fb", "100%", "%FF", "%41"] {
            assert_eq!(service_of(segment).unwrap().as_str(), segment);
        }
        assert_eq!(service_of(""), None);
        assert_eq!(service_of("."), None);
        assert_eq!(service_of("a\u{1b}b"), None);
    }

    proptest! {
        #[test]
        fn every_name_is_found_again_and_no_two_share_a_key(
            a in "[a%/2F \u{f6}._-]{1,6}|\\PC{1,9}", b in "[a%/2F \u{f6}._-]{1,6}|\\PC{1,9}",
        ) {
            for name in [&a, &b] {
                let Ok(service) = ServiceName::new(name) else { continue };
                let segment = service_segment(&service);
                prop_assert!(!segment.contains('/'), "{}", segment);
                prop_assert!(!was_a_service(name) || segment == service.as_str(), "{}", segment);
                prop_assert_eq!(service_of(&segment), Some(service.clone()));
                let id = InstanceId::new(name).unwrap();
                let suffix = id_suffix(&id);
                prop_assert_eq!(was_an_id(name), suffix == id.as_str());
                prop_assert_eq!(was_an_id(name), was_an_id(&suffix));
            }
            if let (Ok(a), Ok(b)) = (InstanceId::new(&a), InstanceId::new(&b)) {
                prop_assert_eq!(a == b, id_suffix(&a) == id_suffix(&b));
            }
        }
    }
}
