//! Programs of other projects beside which ours are tested: built from the modules in `xtask/peers/`, and named by a variable for each
//! backend, as servers are.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use anyhow::Result;

use crate::servers::go;
use crate::servers::server::Server;
use crate::tools::Tools;
use crate::workspace::Workspace;

/// go-kit's registrars and instancers, for each backend that we share with it.
const GO_KIT: &str = "go-kit";
const SHARED_BACKENDS: [&str; 2] = ["etcd", "consul"];
const GO_KIT_VERSION: &str = "0.13.0";
const OLDEST_GO: &str = "1.23.8";
const SOURCES: [&str; 3] = [
    include_str!("../peers/go-kit/main.go"),
    include_str!("../peers/go-kit/go.mod"),
    include_str!("../peers/go-kit/go.sum"),
];

/// The variables that name those which the tests with `servers` need. Builds what none names yet, unless that was done before.
pub(crate) fn provide(
    workspace: &Workspace,
    servers: &[&'static dyn Server],
) -> Result<BTreeMap<String, String>> {
    let wanted: BTreeSet<String> = servers
        .iter()
        .filter_map(|server| variable(*server))
        .collect();
    let mut variables = BTreeMap::new();
    let mut missing = Vec::new();
    for name in wanted {
        match std::env::var(&name) {
            Ok(program) => {
                variables.insert(name, program);
            }
            Err(_) => missing.push(name),
        }
    }
    if missing.is_empty() {
        return Ok(variables);
    }
    let source = workspace.root.join("xtask/peers").join(GO_KIT);
    let tools = Tools::open(workspace)?;
    // Unlike a server, the program is our own and changes.
    let mut hasher = DefaultHasher::new();
    SOURCES.hash(&mut hasher);
    let name = format!("{GO_KIT}-{GO_KIT_VERSION}-{:016x}", hasher.finish());
    let folder = tools.get(&name, |folder| {
        go::build(&tools, &source, OLDEST_GO, &folder.join(GO_KIT))
    })?;
    let program = folder.join(GO_KIT).to_string_lossy().into_owned();
    variables.extend(missing.into_iter().map(|name| (name, program.clone())));
    Ok(variables)
}

/// Where tests of this server's backend find go-kit. None if the program in `xtask/peers` does not speak to it.
pub(crate) fn variable(server: &dyn Server) -> Option<String> {
    let backend = server.backend();
    let variable = || format!("SD_TEST_{}_GO_KIT", backend.to_ascii_uppercase());
    SHARED_BACKENDS.contains(&backend).then(variable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::servers::all::ALL;

    #[test]
    fn the_module_names_the_same_versions() {
        let [_, go_mod, _] = SOURCES;
        assert!(go_mod.contains(&format!("github.com/go-kit/kit v{GO_KIT_VERSION}\n")));
        assert!(go_mod.contains(&format!("\ngo {OLDEST_GO}\n")));
    }

    #[test]
    fn every_backend_that_go_kit_speaks_to_has_its_variable() {
        let names: Vec<String> = ALL.iter().filter_map(|server| variable(*server)).collect();
        let [etcd, consul] = ["SD_TEST_ETCD_GO_KIT", "SD_TEST_CONSUL_GO_KIT"];
        assert_eq!(names, [etcd, etcd, consul]);
    }
}
