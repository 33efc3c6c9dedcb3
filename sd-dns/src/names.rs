//! From the name of a service to the name that is asked.

use std::net::SocketAddr;

use hickory_resolver::proto::rr::{Label, Name};
use sd_core::{Address, Endpoint, Error, Result, ServiceName};

use crate::config::rules::SERVICE;

/// How the names that are asked are made.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    pattern: String,
    domain: Option<String>,
}

impl Names {
    pub(crate) fn new(pattern: String, domain: Option<String>) -> Self {
        Self { pattern, domain }
    }

    /// The name of a service. It is fully qualified if it was written with a dot at its end.
    ///
    /// # Errors
    /// `InvalidInput` if DNS can have no such name.
    pub(crate) fn of(&self, service: &ServiceName) -> Result<Name> {
        let mut text = self.pattern.replace(SERVICE, service.as_str());
        if let Some(domain) = &self.domain {
            text.push('.');
            text.push_str(domain);
        }
        parse(&text).map_err(|why| {
            Error::invalid_input("dns: name of a service", format!("{service:?}: {why}"))
        })
    }

    /// The domain of all services, or the root.
    pub(crate) fn domain(&self) -> Name {
        let domain = self.domain.as_deref();
        let mut name = domain
            .and_then(|domain| parse(domain).ok())
            .unwrap_or_else(Name::root);
        name.set_fqdn(true);
        name
    }
}

/// Reads a name. ASCII stands as it is, since services may be called in ways that are no host names; other text is encoded as
/// internationalised names are (RFC 5891).
///
/// # Errors
/// Why DNS can have no such name.
pub(crate) fn parse(text: &str) -> std::result::Result<Name, String> {
    let (text, is_absolute) = match text.strip_suffix('.') {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    let label = |text: &str| {
        if text.is_empty() {
            return Err("has nothing between two dots, or at an end".to_owned());
        }
        let label = if text.is_ascii() {
            Label::from_raw_bytes(text.as_bytes())
        } else {
            Label::from_utf8(text)
        };
        label.map_err(|_| {
            "a part between dots must have at most 63 bytes, and characters that names may have"
                .to_owned()
        })
    };
    let labels = text.split('.').map(label).collect::<Result<Vec<_>, _>>()?;
    let mut name = Name::from_labels(labels).map_err(|_| "is longer than 255 bytes".to_owned())?;
    name.set_fqdn(is_absolute);
    Ok(name)
}

/// The IP address and the port of an endpoint. `None` if it is a name or a socket.
pub(crate) fn socket_address(endpoint: &Endpoint) -> Option<SocketAddr> {
    match endpoint.address() {
        Address::Tcp { host, port } => Some(SocketAddr::new(host.parse().ok()?, port)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use sd_core::ErrorKind;

    use super::*;

    fn name(pattern: &str, domain: Option<&str>, service: &str) -> Result<Name> {
        let names = Names::new(pattern.to_owned(), domain.map(str::to_owned));
        names.of(&ServiceName::new(service).unwrap())
    }

    fn labels(name: &Name) -> Vec<String> {
        let label = |label: &[u8]| String::from_utf8(label.to_vec()).unwrap();
        name.iter().map(label).collect()
    }

    #[test]
    fn a_name_is_made_of_pattern_service_and_domain() {
        let found = name("_grpc._tcp.{service}", Some("prod.local"), "greeter").unwrap();
        assert_eq!(
            labels(&found),
            ["_grpc", "_tcp", "greeter", "prod", "local"]
        );
        assert!(!found.is_fqdn());
        let found = name("{service}", Some("prod.local."), "a.b").unwrap();
        assert_eq!(labels(&found), ["a", "b", "prod", "local"]);
        assert!(found.is_fqdn());
        let found = name("{service}", None, "greeter.prod.local.").unwrap();
        assert!(found.is_fqdn());
    }

    #[test]
    fn odd_names_are_kept_apart() {
        let odd = ["a/b", "a%2Fb", "a b", "a:b", "größe", "Profile_", "*"];
        let mut found: Vec<_> = odd
            .iter()
            .map(|odd| labels(&name("{service}", Some("d"), odd).unwrap()))
            .collect();
        assert_eq!(found[0], ["a/b", "d"]);
        assert_eq!(found[4], ["xn--gre-6ka8i", "d"]);
        found.sort();
        found.dedup();
        assert_eq!(found.len(), odd.len());
    }

    #[test]
    fn what_is_no_name_is_refused_in_words() {
        let long = "x".repeat(64);
        let many = ["abcdefghijkl"; 9].join(".");
        let longer = format!("{}.", "y".repeat(60)).repeat(3);
        for (service, domain) in [
            ("a..b", "d"),
            (".a", "d"),
            ("a.", "d"),
            (&*long, "d"),
            (&*many, &*longer),
        ] {
            let error = name("{service}", Some(domain), service).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{service}");
        }
    }
}
