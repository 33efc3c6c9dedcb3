//! What the command finds in its environment, and what it does not.

use std::ffi::OsString;

use sd_backend::RegistryUrl;

/// Where the URL of the registry may be, with a password in it.
const REGISTRY: &str = "SDCTL_REGISTRY";
/// The tokens for an agent, and for a config service.
const TOKENS: [&str; 2] = ["SDCTL_AGENT_TOKEN", "SDCTL_CONFIG_SERVICE_TOKEN"];

/// How the environment of the watchdog and the command differs from ours.
#[derive(Debug)]
pub(crate) struct Environment {
    pub(crate) set: Vec<(&'static str, OsString)>,
    pub(crate) unset: Vec<String>,
}

/// The variables that give us our access to the registry: its URL, and those from which the URL has us read a token or the like.
pub(crate) fn secret_variables(url: &RegistryUrl) -> Vec<String> {
    let settings = url.settings::<Vec<(String, String)>>().unwrap_or_default();
    let named = settings
        .into_iter()
        .filter_map(|(key, value)| key.ends_with("_env").then_some(value));
    let ours = [REGISTRY].into_iter().chain(TOKENS).map(str::to_owned);
    ours.chain(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_url_has_us_read_is_a_secret_as_the_url_is() {
        for (url, expected) in [
            ("etcd://u:p@h:1/services?ttl=5s", &[][..]),
            ("consul://h?tag=a&tag=b&token_env=TOKEN", &["TOKEN"]),
        ] {
            let ours = [REGISTRY, TOKENS[0], TOKENS[1]];
            let all = [&ours, expected].concat();
            assert_eq!(secret_variables(&url.parse().unwrap()), all, "{url}");
        }
    }
}
