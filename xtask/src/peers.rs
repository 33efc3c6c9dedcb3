//! Programs of other projects beside which ours are tested: named by variables, as servers are, and built or unpacked where none names
//! them. What is built is a module in `xtask/peers/`.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};

use anyhow::Result;

use crate::servers::server::Server;
use crate::servers::{debian, go, java, maven, node, script};
use crate::shell::quote;
use crate::tools::Tools;
use crate::workspace::Workspace;

/// Peers beside which tests run that need no server: `needs grpc peers`.
pub(crate) struct Alone {
    /// What such a test says that it needs.
    pub(crate) name: &'static str,
    /// What they are called in the output.
    pub(crate) title: &'static str,
    provide: fn(&Workspace) -> Result<Variables>,
}

/// What names programs, and what it says.
pub(crate) type Variables = BTreeMap<String, String>;

pub(crate) const ALONE: [Alone; 2] = [
    Alone {
        name: "grpc",
        title: "peers of gRPC",
        provide: provide_grpc,
    },
    Alone {
        name: "cluster",
        title: "isp-kit",
        provide: provide_cluster,
    },
];

const GRPC_GO_VARIABLE: &str = "SD_TEST_GRPC_GO";
const GRPC_JS_VARIABLE: &str = "SD_TEST_GRPC_JS";
const NGINX_VARIABLE: &str = "SD_TEST_NGINX";
const ISP_KIT_VARIABLE: &str = "SD_TEST_CLUSTER_ISP_KIT";

/// Debian 12's 1.22, and the libraries that a small Debian lacks.
const NGINX_PACKAGES: [&str; 3] = ["nginx", "libpcre2-8-0", "libssl3"];

/// A program beside which the tests of some backends run.
struct Shared {
    /// In the variable that names it.
    name: &'static str,
    backends: &'static [&'static str],
    provide: fn(&Workspace) -> Result<String>,
}

const SHARED: [Shared; 2] = [
    Shared {
        name: "GO_KIT",
        backends: &["etcd", "consul", "zk"],
        provide: |workspace| GO_KIT.provide(workspace),
    },
    Shared {
        name: "CURATOR",
        backends: &["zk"],
        provide: curator,
    },
];

/// A program around one module, which says what its file `go.mod` says.
struct GoProgram {
    name: &'static str,
    version: &'static str,
    oldest_go: &'static str,
    /// The source, `go.mod` and `go.sum`.
    sources: &'static [&'static str],
}

/// go-kit's registrars and instancers.
const GO_KIT: GoProgram = GoProgram {
    name: "go-kit",
    version: "0.13.0",
    oldest_go: "1.23.8",
    sources: &[
        include_str!("../peers/go-kit/main.go"),
        include_str!("../peers/go-kit/go.mod"),
        include_str!("../peers/go-kit/go.sum"),
    ],
};

/// grpc-go's servers and clients, and its interop tests.
const GRPC_GO: GoProgram = GoProgram {
    name: "grpc-go",
    version: "1.85.0",
    oldest_go: "1.26.0",
    sources: &[
        include_str!("../peers/grpc-go/main.go"),
        include_str!("../peers/grpc-go/go.mod"),
        include_str!("../peers/grpc-go/go.sum"),
    ],
};

/// A module of isp-kit, and a server of its framing.
const ISP_KIT: GoProgram = GoProgram {
    name: "isp-kit",
    version: "1.52.1",
    oldest_go: "1.24.0",
    sources: &[
        include_str!("../peers/isp-kit/main.go"),
        include_str!("../peers/isp-kit/client.go"),
        include_str!("../peers/isp-kit/server.go"),
        include_str!("../peers/isp-kit/go.mod"),
        include_str!("../peers/isp-kit/go.sum"),
    ],
};

/// grpc-js's server and client.
const GRPC_JS_VERSION: &str = "1.14.7";
const GRPC_JS_SOURCES: [(&str, &str); 4] = [
    ("main.js", include_str!("../peers/grpc-js/main.js")),
    (
        "interop.proto",
        include_str!("../peers/grpc-js/interop.proto"),
    ),
    (
        "package.json",
        include_str!("../peers/grpc-js/package.json"),
    ),
    (
        "package-lock.json",
        include_str!("../peers/grpc-js/package-lock.json"),
    ),
];

/// Apache Curator's discovery and latch, as `xtask/peers/curator/ivy.xml` names them.
const CURATOR_VERSION: &str = "5.9.0";
const CURATOR_SOURCES: [&str; 2] = [
    include_str!("../peers/curator/Peer.java"),
    include_str!("../peers/curator/ivy.xml"),
];
/// A heap as small as it needs, and warnings alone.
const CURATOR_JVM: &str = "-Xmx128m -XX:+UseSerialGC -Dorg.slf4j.simpleLogger.defaultLogLevel=warn";

/// What a program is kept under. Unlike a server, it is our own and changes.
fn name_of(program: &str, version: &str, sources: &impl Hash) -> String {
    let mut hasher = DefaultHasher::new();
    sources.hash(&mut hasher);
    format!("{program}-{version}-{:016x}", hasher.finish())
}

impl GoProgram {
    /// Builds it, unless that was done before.
    fn provide(&self, workspace: &Workspace) -> Result<String> {
        let source = workspace.root.join("xtask/peers").join(self.name);
        let tools = Tools::open(workspace)?;
        let name = name_of(self.name, self.version, &self.sources);
        let folder = tools.get(&name, |folder| {
            go::build(&tools, &source, self.oldest_go, &folder.join(self.name))
        })?;
        Ok(folder.join(self.name).to_string_lossy().into_owned())
    }
}

/// The variables that name those which the tests with `servers` need.
pub(crate) fn provide(workspace: &Workspace, servers: &[&'static dyn Server]) -> Result<Variables> {
    // Servers of one backend want the same.
    let wanted = servers.iter().flat_map(|server| shared(*server));
    let wanted: BTreeMap<String, &Shared> = wanted.collect();
    let provided = wanted.into_iter().map(|(name, shared)| {
        let program = named_or(&name, || (shared.provide)(workspace))?;
        Ok((name, program))
    });
    provided.collect()
}

impl Alone {
    /// Those that tests name by this name.
    pub(crate) fn of(name: &str) -> Option<&'static Self> {
        ALONE.iter().find(|alone| alone.name == name)
    }

    /// The variables that name them.
    pub(crate) fn provide(&self, workspace: &Workspace) -> Result<Variables> {
        (self.provide)(workspace)
    }
}

/// The peer of sd-cluster.
fn provide_cluster(workspace: &Workspace) -> Result<Variables> {
    let isp_kit = named_or(ISP_KIT_VARIABLE, || ISP_KIT.provide(workspace))?;
    Ok([(ISP_KIT_VARIABLE.to_owned(), isp_kit)].into())
}

/// The peers of sd-grpc.
fn provide_grpc(workspace: &Workspace) -> Result<Variables> {
    let grpc_go = named_or(GRPC_GO_VARIABLE, || GRPC_GO.provide(workspace))?;
    let nginx = named_or(NGINX_VARIABLE, || nginx(workspace))?;
    let grpc_js = named_or(GRPC_JS_VARIABLE, || grpc_js(workspace))?;
    let provided = [
        (GRPC_GO_VARIABLE, grpc_go),
        (GRPC_JS_VARIABLE, grpc_js),
        (NGINX_VARIABLE, nginx),
    ];
    Ok(provided
        .map(|(name, program)| (name.to_owned(), program))
        .into())
}

/// Installs grpc-js and our program over it, unless that was done before.
fn grpc_js(workspace: &Workspace) -> Result<String> {
    let tools = Tools::open(workspace)?;
    let node = node::runtime(&tools)?;
    // The script below names this very Node.js.
    let name = name_of(
        "grpc-js",
        GRPC_JS_VERSION,
        &(GRPC_JS_SOURCES, &node.program),
    );
    let folder = tools.get(&name, |folder| {
        for (file, text) in GRPC_JS_SOURCES {
            fs::write(folder.join(file), text)?;
        }
        node.install(folder)?;
        let node = node.program.to_string_lossy();
        let lines = format!("exec '{node}' \"$here/main.js\" \"$@\"\n");
        script::write(&folder.join("grpc-js"), &lines)
    })?;
    Ok(folder.join("grpc-js").to_string_lossy().into_owned())
}

/// Fetches Curator and compiles our program over it, unless that was done before.
fn curator(workspace: &Workspace) -> Result<String> {
    let source = workspace.root.join("xtask/peers/curator");
    let tools = Tools::open(workspace)?;
    let java = java::runtime(&tools)?;
    // The script below names this very Java.
    let name = name_of("curator", CURATOR_VERSION, &(CURATOR_SOURCES, &java));
    let folder = tools.get(&name, |folder| {
        let [jars, classes] = ["jars", "classes"].map(|name| folder.join(name));
        fs::create_dir(&jars)?;
        maven::retrieve(&tools, &source.join("ivy.xml"), &jars)?;
        java::compile(&tools, &source.join("Peer.java"), &jars, &classes)?;
        let java = java.to_string_lossy();
        let java = quote(&java);
        let lines =
            format!("exec {java} {CURATOR_JVM} -cp \"$here/classes:$here/jars/*\" Peer \"$@\"\n");
        script::write(&folder.join("curator"), &lines)
    })?;
    Ok(folder.join("curator").to_string_lossy().into_owned())
}

/// Unpacks nginx, unless that was done before.
fn nginx(workspace: &Workspace) -> Result<String> {
    let folder = Tools::open(workspace)?.get("nginx-1.22-debian", |folder| {
        debian::unpack(&NGINX_PACKAGES, folder)?;
        let lines = "for libraries in \"$here\"/usr/lib/*-linux-gnu; do LD_LIBRARY_PATH=$libraries; done\n\
            export LD_LIBRARY_PATH\nexec \"$here/usr/sbin/nginx\" \"$@\"\n";
        script::write(&folder.join("nginx"), lines)
    })?;
    Ok(folder.join("nginx").to_string_lossy().into_owned())
}

/// The program that the variable `name` names, and else the one that `provide` makes.
fn named_or(name: &str, provide: impl FnOnce() -> Result<String>) -> Result<String> {
    std::env::var(name).or_else(|_| provide())
}

/// Where tests of this server's backend find the programs beside which they run. None if no program in `xtask/peers` speaks to it.
pub(crate) fn variables(server: &dyn Server) -> impl Iterator<Item = String> {
    shared(server).map(|(variable, _)| variable)
}

fn shared(server: &dyn Server) -> impl Iterator<Item = (String, &'static Shared)> {
    let backend = server.backend();
    let shared = SHARED.iter();
    let shared = shared.filter(move |shared| shared.backends.contains(&backend));
    let backend = backend.to_ascii_uppercase();
    shared.map(move |shared| (format!("SD_TEST_{backend}_{}", shared.name), shared))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::servers::all::ALL;

    #[test]
    fn the_modules_name_the_same_versions() {
        let modules = [
            ("github.com/go-kit/kit", GO_KIT),
            ("google.golang.org/grpc", GRPC_GO),
            ("github.com/txix-open/isp-kit", ISP_KIT),
        ];
        for (module, program) in modules {
            let [.., go_mod, _] = program.sources else {
                panic!("{} has no go.mod", program.name);
            };
            assert!(go_mod.contains(&format!("{module} v{}\n", program.version)));
            assert!(go_mod.contains(&format!("\ngo {}\n", program.oldest_go)));
        }
    }

    #[test]
    fn the_package_of_grpc_js_names_the_same_version() {
        let wanted = format!("\"@grpc/grpc-js\": \"{GRPC_JS_VERSION}\"");
        for (file, text) in &GRPC_JS_SOURCES[2..] {
            assert!(text.contains(&wanted), "{file}");
        }
    }

    #[test]
    fn every_backend_that_another_project_shares_has_its_variable() {
        let names: BTreeSet<String> = ALL.iter().flat_map(|server| variables(*server)).collect();
        let expected = [
            "SD_TEST_CONSUL_GO_KIT",
            "SD_TEST_ETCD_GO_KIT",
            "SD_TEST_ZK_CURATOR",
            "SD_TEST_ZK_GO_KIT",
        ];
        assert_eq!(names, BTreeSet::from(expected.map(str::to_owned)));
    }

    #[test]
    fn the_module_of_curator_names_the_same_version() {
        let [_, module] = CURATOR_SOURCES;
        for name in ["curator-x-discovery", "curator-recipes"] {
            let wanted = format!("name=\"{name}\" rev=\"{CURATOR_VERSION}\"");
            assert!(module.contains(&wanted), "{name}");
        }
    }

    #[test]
    fn what_needs_peers_alone_needs_no_server() {
        for alone in &ALONE {
            assert!(ALL.iter().all(|server| server.backend() != alone.name));
            assert_eq!(Alone::of(alone.name).map(|of| of.title), Some(alone.title));
        }
    }
}
