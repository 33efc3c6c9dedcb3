//! What this machine knows itself: the resolvers and search domains of `/etc/resolv.conf`, and the hosts of `/etc/hosts`.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use hickory_resolver::Hosts;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RecordType};
use resolv_conf::ScopedIp;
use tracing::warn;

use crate::names;

/// More than a list of hosts has.
const MOST_BYTES: u64 = 16 * 1024 * 1024;

/// Where the files are.
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    resolv_conf: PathBuf,
    hosts: PathBuf,
}

/// When each file was changed, and its size; `None` for one that cannot be read.
pub(crate) type Stamps = [Option<(SystemTime, u64)>; 2];

/// What the files say.
#[derive(Debug)]
pub(crate) struct SystemFiles {
    pub(crate) resolvers: Vec<IpAddr>,
    search: Vec<Name>,
    /// With fewer dots than this, a name is looked for in the search domains first.
    ndots: usize,
    hosts: Hosts,
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            hosts: PathBuf::from("/etc/hosts"),
        }
    }
}

impl Paths {
    /// Blocks.
    pub(crate) fn stamps(&self) -> Stamps {
        [&self.resolv_conf, &self.hosts].map(|path| {
            let about = about_file(path)?;
            Some((about.modified().ok()?, about.len()))
        })
    }

    /// Reads both files. Without resolvers, this machine is asked itself, as by other programs. Blocks.
    pub(crate) fn read(&self) -> SystemFiles {
        let text = contents(&self.resolv_conf).unwrap_or_default();
        // A line that cannot be read counts for nothing, as for other programs.
        let (config, _) = resolv_conf::Config::parse_with_errors(&text);
        let address = |server: &ScopedIp| match server {
            ScopedIp::V4(address) => Some(IpAddr::V4(*address)),
            // Without its interface, such an address cannot be reached.
            ScopedIp::V6(_, Some(_)) => None,
            ScopedIp::V6(address, None) => Some(IpAddr::V6(*address)),
        };
        let mut resolvers: Vec<_> = config.nameservers.iter().filter_map(address).collect();
        if resolvers.is_empty() {
            resolvers.push(Ipv4Addr::LOCALHOST.into());
        }
        let search = config.get_last_search_or_domain();
        let search = search.filter_map(|domain| names::parse(domain).ok());
        let mut hosts = Hosts::default();
        if let Some(text) = contents(&self.hosts)
            && let Err(error) = hosts.read_hosts_conf(&*text)
        {
            warn!(%error, "the file of hosts cannot be read to its end");
        }
        SystemFiles {
            resolvers,
            search: search.collect(),
            ndots: usize::try_from(config.ndots).unwrap_or(usize::MAX),
            hosts,
        }
    }
}

impl SystemFiles {
    /// The names that are asked for `name`, in order.
    pub(crate) fn candidates(&self, name: &Name) -> Vec<Name> {
        let itself = absolute(name);
        if name.is_fqdn() {
            return vec![itself];
        }
        let inside = |domain: &Name| Some(absolute(&name.clone().append_domain(domain).ok()?));
        let mut candidates: Vec<_> = self.search.iter().filter_map(inside).collect();
        let dots = usize::from(name.num_labels()).saturating_sub(1);
        let at = if dots >= self.ndots {
            0
        } else {
            candidates.len()
        };
        candidates.insert(at, itself);
        candidates
    }

    /// The addresses that the file of hosts has for `name`.
    pub(crate) fn hosts(&self, name: &Name, wanted: RecordType) -> Vec<IpAddr> {
        let query = Query::query(name.clone(), wanted);
        let Some(found) = self.hosts.lookup_static_host(&query) else {
            return Vec::new();
        };
        let records = found.answers().iter();
        records.filter_map(|record| record.data.ip_addr()).collect()
    }
}

/// The name with a dot at its end.
pub(crate) fn absolute(name: &Name) -> Name {
    let mut name = name.clone();
    name.set_fqdn(true);
    name
}

/// To open a pipe that no program writes to would wait for one.
fn about_file(path: &Path) -> Option<Metadata> {
    fs::metadata(path).ok().filter(Metadata::is_file)
}

fn contents(path: &Path) -> Option<Vec<u8>> {
    about_file(path)?;
    let read = || -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        File::open(path)?.take(MOST_BYTES).read_to_end(&mut text)?;
        Ok(text)
    };
    read().ok()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Paths of files with these texts, in a folder that lasts as long as what is returned with them.
    pub(crate) fn files(resolv_conf: &str, hosts: &str) -> (Paths, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths {
            resolv_conf: folder.path().join("resolv.conf"),
            hosts: folder.path().join("hosts"),
        };
        write(&paths, resolv_conf, hosts);
        (paths, folder)
    }

    pub(crate) fn write(paths: &Paths, resolv_conf: &str, hosts: &str) {
        fs::write(&paths.resolv_conf, resolv_conf).unwrap();
        fs::write(&paths.hosts, hosts).unwrap();
    }

    /// Puts pipes, to which no program writes, where [`files`] has made files.
    pub(crate) fn make_pipes(folder: &Path) {
        for name in ["resolv.conf", "hosts"] {
            let pipe = folder.join(name);
            fs::remove_file(&pipe).unwrap();
            let made = std::process::Command::new("mkfifo").arg(&pipe).status();
            assert!(made.unwrap().success());
        }
    }

    fn asked(resolv_conf: &str, name: &str) -> Vec<String> {
        let (paths, _folder) = files(resolv_conf, "");
        let name = names::parse(name).unwrap();
        let candidates = paths.read().candidates(&name);
        candidates.iter().map(Name::to_ascii).collect()
    }

    #[test]
    fn search_domains_come_first_for_names_with_few_dots() {
        let cluster = "nameserver 10.0.0.10\nsearch ns.svc.cluster.local svc.cluster.local\noptions ndots:5\n";
        let found = asked(cluster, "greeter.prod");
        let expected = [
            "greeter.prod.ns.svc.cluster.local.",
            "greeter.prod.svc.cluster.local.",
            "greeter.prod.",
        ];
        assert_eq!(found, expected);
        assert_eq!(asked(cluster, "greeter.prod."), ["greeter.prod."]);
        let found = asked("nameserver 1.1.1.1\nsearch a.b\n", "greeter.prod");
        assert_eq!(found, ["greeter.prod.", "greeter.prod.a.b."]);
        assert_eq!(asked("", "greeter.prod"), ["greeter.prod."]);
    }

    #[test]
    fn resolvers_are_those_of_the_file_or_this_machine() {
        let (paths, _folder) = files(
            "nameserver 10.0.0.10\n%%garbage\nnameserver fe80::1%eth0\nnameserver ::1\n",
            "",
        );
        let expected: [IpAddr; 2] = ["10.0.0.10".parse().unwrap(), "::1".parse().unwrap()];
        assert_eq!(paths.read().resolvers, expected);
        let (paths, folder) = files("", "");
        drop(folder);
        assert_eq!(paths.read().resolvers, [IpAddr::V4(Ipv4Addr::LOCALHOST)]);
        assert_eq!(paths.stamps(), [None, None]);
    }

    #[test]
    fn hosts_have_addresses_of_both_families() {
        let (paths, _folder) = files("", "10.0.0.7 greeter.prod greeter\n::7 greeter.prod\n");
        let files = paths.read();
        let name = names::parse("Greeter.prod").unwrap();
        let v4: [IpAddr; 1] = ["10.0.0.7".parse().unwrap()];
        assert_eq!(files.hosts(&name, RecordType::A), v4);
        assert_eq!(files.hosts(&name, RecordType::AAAA).len(), 1);
        let other = names::parse("other.prod").unwrap();
        assert!(files.hosts(&other, RecordType::A).is_empty());
    }
}
