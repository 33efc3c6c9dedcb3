//! Every server that tests need. To add one: how it is started, in `xtask/servers/src`; a file beside this one with an
//! `impl Server`; and its name in [`ALL`].

use anyhow::{Result, bail};

use crate::servers::server::Server;
use crate::servers::{consul, etcd};

/// Every server. The first of a backend is the one that its plain variables name: `SD_TEST_ETCD` is the 3.6.
pub(crate) const ALL: &[&dyn Server] = &[&etcd::ETCD_3_6, &etcd::ETCD_3_4, &consul::CONSUL_1_20];

/// Those with one of these names (`etcd-3.6`) or backends (`etcd`); all when none is given.
pub(crate) fn chosen(names: &[String]) -> Result<Vec<&'static dyn Server>> {
    let is =
        |server: &dyn Server, name: &String| *name == server.name() || name == server.backend();
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
    let wanted =
        |server: &dyn Server| names.is_empty() || names.iter().any(|name| is(server, name));
    Ok(ALL
        .iter()
        .copied()
        .filter(|server| wanted(*server))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names_of(servers: &[&dyn Server]) -> Vec<String> {
        servers.iter().map(|server| server.name()).collect()
    }

    #[test]
    fn a_server_is_chosen_by_name_or_backend() {
        let choose = |name: &str| names_of(&chosen(&[name.to_owned()]).unwrap());
        assert_eq!(choose("etcd"), ["etcd-3.6", "etcd-3.4"]);
        assert_eq!(choose("etcd-3.4"), ["etcd-3.4"]);
        assert_eq!(names_of(&chosen(&[]).unwrap()), names_of(ALL));
    }

    #[test]
    fn an_unknown_name_is_told_what_there_is() {
        let error = chosen(&["etcd-2".to_owned()]).unwrap_err().to_string();
        assert!(
            error.contains("etcd-2") && error.contains("etcd-3.6"),
            "{error}"
        );
    }
}
