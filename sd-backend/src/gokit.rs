//! go-kit's form of a stored record: `scheme://host:port`, or an address alone.

use sd_core::{Endpoint, Incarnation, Instance, InstanceId, ServiceName};

/// The metadata key of the scheme in a go-kit value.
pub const SCHEME: &str = "scheme";
/// The metadata key of the text after the address in a go-kit value, for instance `/api`.
pub const PATH: &str = "path";
/// The scheme of a go-kit value if the instance has no metadata entry [`SCHEME`].
pub const DEFAULT_SCHEME: &str = "http";

/// The value for an instance.
pub fn encode(instance: &Instance) -> String {
    let metadata = |key| instance.metadata().get(key).map(String::as_str);
    let path = metadata(PATH).unwrap_or_default();
    match metadata(SCHEME).unwrap_or(DEFAULT_SCHEME) {
        "" => format!("{}{path}", instance.endpoint()),
        scheme => format!("{scheme}://{}{path}", instance.endpoint()),
    }
}

/// The instance that `value` says, as the run `run`.
///
/// # Errors
/// Why the value cannot be understood. A user name or password in it is not repeated.
pub fn decode(
    service: &ServiceName,
    id: &str,
    value: &[u8],
    run: Incarnation,
) -> Result<Instance, String> {
    let text = std::str::from_utf8(value)
        .map_err(|_| "the value is neither JSON nor text")?
        .trim();
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (scheme, rest),
        None => ("", text),
    };
    let is_scheme = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    if !scheme.chars().all(is_scheme) {
        return Err("the value is neither JSON nor an address".to_owned());
    }
    let (address, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if address.contains('@') {
        // Not repeated in the reason: it may be a password.
        return Err("the address contains a user name".to_owned());
    }
    let has_port = address
        .rsplit_once(':')
        .is_some_and(|(_, port)| !port.contains(']'));
    let endpoint = match scheme {
        "http" if !has_port => Endpoint::tcp(address, 80),
        "https" if !has_port => Endpoint::tcp(address, 443),
        _ => address.parse(),
    }
    .map_err(|error| error.report().to_string())?;
    let id = InstanceId::new(id).map_err(|error| error.report().to_string())?;
    let mut instance = Instance::of_run(service.clone(), id, run, endpoint);
    for (key, value) in [(SCHEME, scheme), (PATH, path)] {
        if !value.is_empty() {
            instance = instance.with_metadata(key, value);
        }
    }
    Ok(instance)
}
