//! Where ZooKeeper comes from: the current release, and the one that Debian 12 carries.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use server_programs::{LocalServer, ZooKeeper};

use crate::servers::server::Server;
use crate::servers::{debian, java, maven, script};
use crate::shell::quote;
use crate::tools::Tools;
use crate::workspace::Workspace;

/// From Maven Central, as `xtask/servers/zookeeper-3.9/ivy.xml` names it.
pub(crate) const ZOOKEEPER_3_9: ZooKeeperRelease = ZooKeeperRelease {
    minor: 9,
    source: Source::Maven { version: "3.9.5" },
};

/// Debian 12's 3.8.0.
pub(crate) const ZOOKEEPER_3_8: ZooKeeperRelease = ZooKeeperRelease {
    minor: 8,
    source: Source::Debian,
};

const DEBIAN_PACKAGES: [&str; 6] = [
    "libzookeeper-java",
    "libcommons-cli-java",
    "libdropwizard-metrics-java",
    "libnetty-java",
    "libslf4j-java",
    "libsnappy-java",
];

/// Not all that the packages hold, because of each of several loggers only one may be there.
const DEBIAN_JARS: [&str; 15] = [
    "commons-cli",
    "metrics-core",
    "netty-buffer",
    "netty-codec",
    "netty-common",
    "netty-handler",
    "netty-resolver",
    "netty-transport",
    "netty-transport-native-epoll",
    "netty-transport-native-unix-common",
    "slf4j-api",
    "slf4j-simple",
    "snappy-java",
    "zookeeper",
    "zookeeper-jute",
];

/// One release line of ZooKeeper 3.
#[derive(Debug)]
pub(crate) struct ZooKeeperRelease {
    minor: u32,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Maven { version: &'static str },
    Debian,
}

impl Server for ZooKeeperRelease {
    fn backend(&self) -> &'static str {
        "zk"
    }

    fn product(&self) -> &'static str {
        "zookeeper"
    }

    fn line(&self) -> (u32, u32) {
        (3, self.minor)
    }

    fn executable(&self) -> &'static str {
        "zkServer.sh"
    }

    fn install(&self, workspace: &Workspace, tools: &Tools) -> Result<PathBuf> {
        let folder = match self.source {
            Source::Maven { version } => {
                let module = workspace.root.join("xtask/servers/zookeeper-3.9/ivy.xml");
                tools.get(&format!("zookeeper-{version}"), |folder| {
                    let jars = folder.join("jars");
                    fs::create_dir(&jars)?;
                    maven::retrieve(tools, &module, &jars)?;
                    write_program(folder, &java::runtime(tools)?, "$here/jars/*")
                })?
            }
            Source::Debian => {
                tools.get(&format!("zookeeper-3.{}-debian", self.minor), |folder| {
                    debian::unpack(&DEBIAN_PACKAGES, folder)?;
                    let jars = DEBIAN_JARS.map(|jar| format!("$here/usr/share/java/{jar}.jar"));
                    write_program(folder, &java::runtime(tools)?, &jars.join(":"))
                })?
            }
        };
        Ok(folder.join(self.executable()))
    }

    fn local(
        &self,
        program: &Path,
        free_port: &mut dyn FnMut() -> io::Result<u16>,
    ) -> io::Result<Box<dyn LocalServer>> {
        Ok(Box::new(ZooKeeper::new(program, free_port)?))
    }

    fn serving_at(&self, url: &str) -> io::Result<Option<String>> {
        ZooKeeper::serving_at(url).map(Some)
    }

    fn version_command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.arg("version");
        command
    }
}

/// What ZooKeeper's own `zkServer.sh` does, as far as it is used here. Neither source carries that.
fn write_program(folder: &Path, java: &OsStr, class_path: &str) -> Result<()> {
    let java = java.to_string_lossy();
    let java = quote(&java);
    let lines = format!(
        r#"class_path="{class_path}"
case $1 in
start-foreground)
    # The flags are several words.
    exec {java} $SERVER_JVMFLAGS -cp "$class_path" org.apache.zookeeper.server.quorum.QuorumPeerMain "$2"
    ;;
version)
    exec {java} -cp "$class_path" org.apache.zookeeper.version.VersionInfoMain
    ;;
*)
    echo "usage: $0 start-foreground FILE | version" >&2
    exit 2
    ;;
esac
"#
    );
    script::write(&folder.join("zkServer.sh"), &lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_names_the_same_version() {
        let module = include_str!("../../servers/zookeeper-3.9/ivy.xml");
        let Source::Maven { version } = ZOOKEEPER_3_9.source else {
            panic!("3.9 is from Maven Central");
        };
        assert!(module.contains(&format!("name=\"zookeeper\" rev=\"{version}\"")));
    }
}
