//! Every server that tests need. To add one: how it is started, in `xtask/servers/src`; a file beside this one with an
//! `impl Server`; and its name in [`ALL`].

use anyhow::{Result, bail};

use crate::servers::server::Server;
use crate::servers::{consul, etcd, knot, moto, redis, zookeeper};
use crate::workspace::Workspace;

/// Every server. The first of a backend is the one that its plain variables name: `SD_TEST_ETCD` is the 3.6.
pub(crate) const ALL: &[&dyn Server] = &[
    &etcd::ETCD_3_6,
    &etcd::ETCD_3_4,
    &consul::CONSUL_1_20,
    &knot::KNOT_3_2,
    &zookeeper::ZOOKEEPER_3_9,
    &zookeeper::ZOOKEEPER_3_8,
    &redis::VALKEY_9_1,
    &redis::REDIS_7_0,
    &moto::MOTO_5_2,
];

/// Those with one of these names (`etcd-3.6`), products (`valkey`) or backends (`redis`). When none is given, those of the backends
/// that this workspace has.
pub(crate) fn chosen(workspace: &Workspace, names: &[String]) -> Result<Vec<&'static dyn Server>> {
    if let Some(unknown) = names
        .iter()
        .find(|name| !ALL.iter().any(|server| is(*server, name)))
    {
        let known: Vec<String> = ALL.iter().map(|server| server.name()).collect();
        bail!(
            "there is no server {unknown}; there are {}",
            known.join(", ")
        );
    }
    let all = ALL.iter().copied();
    if names.is_empty() {
        let has_backend = |server: &&dyn Server| workspace.package(&server.package()).is_some();
        return Ok(all.filter(has_backend).collect());
    }
    let is_named = |server: &&dyn Server| names.iter().any(|name| is(*server, name));
    Ok(all.filter(is_named).collect())
}

fn is(server: &dyn Server, name: &str) -> bool {
    name == server.name() || name == server.product() || name == server.backend()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names_of(servers: &[&dyn Server]) -> Vec<String> {
        servers.iter().map(|server| server.name()).collect()
    }

    /// One that has only the backend etcd.
    fn workspace() -> Workspace {
        let json = r#"{"workspace_root":"/w","target_directory":"/t","packages":[
            {"name":"sd-etcd","id":"e","version":"0.1.0","manifest_path":"/w/e/Cargo.toml","rust_version":null,"features":{},"targets":[]}]}"#;
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_server_is_chosen_by_name_product_or_backend() {
        let choose = |name: &str| names_of(&chosen(&workspace(), &[name.to_owned()]).unwrap());
        assert_eq!(choose("etcd"), ["etcd-3.6", "etcd-3.4"]);
        assert_eq!(choose("etcd-3.4"), ["etcd-3.4"]);
        assert_eq!(choose("valkey"), ["valkey-9.1"]);
        assert_eq!(choose("redis"), ["valkey-9.1", "redis-7.0"]);
    }

    #[test]
    fn a_server_without_a_backend_here_is_chosen_only_by_name() {
        assert_eq!(
            names_of(&chosen(&workspace(), &[]).unwrap()),
            ["etcd-3.6", "etcd-3.4"]
        );
        let named = chosen(&workspace(), &["zookeeper".to_owned()]).unwrap();
        assert_eq!(names_of(&named), ["zookeeper-3.9", "zookeeper-3.8"]);
    }

    #[test]
    fn an_unknown_name_is_told_what_there_is() {
        let error = chosen(&workspace(), &["etcd-2".to_owned()])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("etcd-2") && error.contains("etcd-3.6"),
            "{error}"
        );
    }
}
