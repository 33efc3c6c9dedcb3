//! The contract with the tests: which variables say where a server is.
//!
//! `SD_TEST_ETCD_3_6` is the URL of a running server, `SD_TEST_ETCD_3_6_BIN` its program, for tests that start, kill and
//! freeze servers of their own, and `SD_TEST_ETCD_3_6_VERSION` its version. The same without `_3_6` is what tests read.

use crate::servers::names::{program_names, with_line, without_line};
use crate::servers::program::Program;
use crate::servers::running::Running;
use crate::servers::server::Server;

/// The variables of all of `running`: those with a release line in their name, and plain ones for the first of each backend.
pub(crate) fn of(running: &[Running]) -> Vec<(String, String)> {
    let mut backends = Vec::new();
    let mut all = Vec::new();
    for one in running {
        all.extend(named(&with_line(one.server), one));
        if !backends.contains(&one.server.backend()) {
            backends.push(one.server.backend());
            all.extend(plain(one));
        }
    }
    all
}

/// Those of `programs`, which belong to `servers` in this order, for who starts all servers by itself.
pub(crate) fn of_programs(servers: &[&dyn Server], programs: &[Program]) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    for (server, program) in servers.iter().zip(programs) {
        let path = program.path.to_string_lossy();
        for name in program_names(*server) {
            // The plain name is that of the first of its backend.
            if !all.iter().any(|(known, _)| *known == name) {
                all.push((name, path.to_string()));
            }
        }
    }
    all
}

/// The variables that tests read.
pub(crate) fn plain(running: &Running) -> [(String, String); 3] {
    named(&without_line(running.server), running)
}

fn named(prefix: &str, running: &Running) -> [(String, String); 3] {
    let program = running.program.path.to_string_lossy().into_owned();
    [
        (prefix.to_owned(), running.url.clone()),
        (format!("{prefix}_BIN"), program),
        (format!("{prefix}_VERSION"), running.version.to_string()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::servers::all::ALL;
    use crate::version::Version;

    fn running(name: &str, url: &str, version: &str) -> Running {
        let mut all = ALL.iter().copied();
        let server = all.find(|server| server.name() == name).unwrap();
        let program = Program {
            path: "/bin/etcd".into(),
            version: Version::find(version).unwrap(),
        };
        Running::new(server, program, url.to_owned())
    }

    #[test]
    fn plain_variables_name_the_first_of_a_backend() {
        let servers = [
            running("etcd-3.6", "http://a:1", "3.6.16"),
            running("etcd-3.4", "http://a:2", "3.4.23"),
        ];
        let printed: Vec<String> = of(&servers)
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        assert_eq!(
            printed,
            [
                "SD_TEST_ETCD_3_6=http://a:1",
                "SD_TEST_ETCD_3_6_BIN=/bin/etcd",
                "SD_TEST_ETCD_3_6_VERSION=3.6.16",
                "SD_TEST_ETCD=http://a:1",
                "SD_TEST_ETCD_BIN=/bin/etcd",
                "SD_TEST_ETCD_VERSION=3.6.16",
                "SD_TEST_ETCD_3_4=http://a:2",
                "SD_TEST_ETCD_3_4_BIN=/bin/etcd",
                "SD_TEST_ETCD_3_4_VERSION=3.4.23",
            ]
        );
    }

    #[test]
    fn programs_are_named_as_those_of_running_servers_are() {
        let program = |path: &str| Program {
            path: path.into(),
            version: Version::find("3.6.16").unwrap(),
        };
        let named = of_programs(ALL, &[program("/6"), program("/4")]);
        let shown: Vec<_> = named
            .iter()
            .map(|(name, path)| format!("{name}={path}"))
            .collect();
        assert_eq!(
            shown,
            [
                "SD_TEST_ETCD_3_6_BIN=/6",
                "SD_TEST_ETCD_BIN=/6",
                "SD_TEST_ETCD_3_4_BIN=/4",
            ]
        );
    }
}
