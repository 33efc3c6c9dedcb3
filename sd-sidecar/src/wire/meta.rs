//! Where the metadata of an instance has what only the reference system knows of it: under the names that its agents write to Consul.

/// The id of the application.
pub const APP_ID: &str = "app_id";
/// The name of the application.
pub const APP_NAME: &str = "app_name";
/// The run of the application. The reference system keeps it for itself.
pub const APP_INSTANCE_ID: &str = "app_instance_id";
/// The agent that has registered it: the same after each of its starts.
pub const AGENT_ID: &str = "agent_id";
/// The namespace of the service.
pub const NAMESPACE: &str = "namespace";
/// The name of the service in DNS, without a port.
pub const DNS: &str = "dns";
/// The environment, such as `prod`.
pub const ENV: &str = "env";
/// The protocol, such as `grpc`.
pub const PROTOCOL: &str = "protocol";
/// The weight as the client sent it.
pub const WEIGHT: &str = "weight";
/// The language that the client is written in.
pub const KERNEL_LANGUAGE: &str = "kernel_language";
/// The version of the client's framework.
pub const KERNEL_VERSION: &str = "kernel_version";
/// When the client described itself, as it sent it.
pub const RUN_DATE: &str = "run_date";
/// The methods up to their last slash, separated by commas. A long list goes on under `route_prefixes_2`, and so on.
pub const ROUTE_PREFIXES: &str = "route_prefixes";
/// The methods, separated by commas. A long list goes on under `methods_2`, and so on. The reference system does not tell readers.
pub const METHODS: &str = "methods";
/// The HTTP routes, each as JSON on a line of its own. A long list goes on under `http_routes_2`, and so on.
pub const HTTP_ROUTES: &str = "http_routes";

use std::collections::BTreeMap;

/// The longest value that Consul takes.
const MOST_VALUE_BYTES: usize = 512;

/// Puts a list under `key`, and what does not fit there under `key_2` and so on.
pub(crate) fn put_list(
    metadata: &mut BTreeMap<String, String>,
    key: &str,
    separator: char,
    items: impl IntoIterator<Item = impl AsRef<str>>,
) {
    let mut value = String::new();
    let mut part = 1;
    let mut is_empty = true;
    for item in items {
        let item = item.as_ref();
        if !is_empty && value.len() + 1 + item.len() > MOST_VALUE_BYTES {
            metadata.insert(part_key(key, part), std::mem::take(&mut value));
            part += 1;
            is_empty = true;
        }
        if !is_empty {
            value.push(separator);
        }
        value.push_str(item);
        is_empty = false;
    }
    if !is_empty {
        metadata.insert(part_key(key, part), value);
    }
}

/// The list that was put under `key`.
pub fn list<'a>(
    metadata: &'a BTreeMap<String, String>,
    key: &'a str,
    separator: char,
) -> impl Iterator<Item = &'a str> {
    (1..)
        .map_while(move |part| metadata.get(&part_key(key, part)))
        .flat_map(move |value| value.split(separator))
}

fn part_key(key: &str, part: usize) -> String {
    match part {
        1 => key.to_owned(),
        _ => format!("{key}_{part}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_any_length_is_kept_in_values_that_consul_takes() {
        for count in [0, 1, 40, 1000] {
            let items: Vec<String> = (0..count).map(|n| format!("/acme.v1.S/M{n}")).collect();
            let mut metadata = BTreeMap::new();
            put_list(&mut metadata, METHODS, ',', &items);
            assert!(
                metadata
                    .values()
                    .all(|value| value.len() <= MOST_VALUE_BYTES)
            );
            assert_eq!(metadata.is_empty(), items.is_empty());
            let read: Vec<&str> = list(&metadata, METHODS, ',').collect();
            assert_eq!(read, items);
        }
    }
}
