//! The tests that wait for a server.

use anyhow::Result;

use crate::built::Executable;

/// A test that only runs when it is asked for.
#[derive(Debug)]
pub(crate) struct Ignored<'a> {
    pub(crate) executable: &'a Executable,
    pub(crate) name: String,
    /// `needs etcd: cargo xtask test --backend etcd`
    pub(crate) reason: String,
}

impl Ignored<'_> {
    /// Its reason begins with `needs <backend>`.
    pub(crate) fn needs(&self, backend: &str) -> bool {
        let first = self
            .what_is_needed()
            .split(|c: char| !c.is_ascii_alphanumeric());
        first
            .take(1)
            .any(|first| first.eq_ignore_ascii_case(backend))
    }

    /// What it shows is ours, so that one version of the server is enough. Its reason begins with `needs <backend> of any version`.
    pub(crate) fn needs_any_version(&self) -> bool {
        let needed = self.what_is_needed().split(':').next();
        needed.is_some_and(|needed| needed.ends_with(" of any version"))
    }

    fn what_is_needed(&self) -> &str {
        self.reason.strip_prefix("needs ").unwrap_or_default()
    }
}

/// All ignored tests, those of one program next to each other.
pub(crate) fn all(executables: &[Executable]) -> Result<Vec<Ignored<'_>>> {
    let mut all = Vec::new();
    for executable in executables {
        let list = executable.ask(&["--ignored", "--list", "--format", "terse"])?;
        let names: Vec<&str> = listed(&list).collect();
        if names.is_empty() {
            continue;
        }
        // Asked for by name but without `--ignored`, they are not run, and say why.
        let said = executable.ask(&[&["--exact"], names.as_slice()].concat())?;
        for name in names {
            let reason = said.lines().find_map(|line| reason(line, name));
            all.push(Ignored {
                executable,
                name: name.to_owned(),
                reason: reason.unwrap_or("gives no reason").to_owned(),
            });
        }
    }
    Ok(all)
}

fn listed(list: &str) -> impl Iterator<Item = &str> {
    list.lines().filter_map(|line| line.strip_suffix(": test"))
}

/// From `test some::name ... ignored, needs etcd: ...`.
fn reason<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.strip_prefix("test ")?
        .strip_prefix(name)?
        .strip_prefix(" ... ignored, ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_reasons_are_read_from_libtest() {
        let list = "conforms::list: test\nbench_it: benchmark\n";
        assert_eq!(listed(list).collect::<Vec<_>>(), ["conforms::list"]);
        let line = "test conforms::list ... ignored, needs etcd: cargo xtask test --backend etcd";
        let why = reason(line, "conforms::list").unwrap();
        assert!(why.starts_with("needs etcd"));
        assert_eq!(reason(line, "conforms"), None);
    }

    #[test]
    fn the_reason_says_which_server() {
        let executable = Executable::named("p", None);
        let test = |reason: &str| Ignored {
            executable: &executable,
            name: String::new(),
            reason: reason.to_owned(),
        };
        let needs = |reason: &str, backend| test(reason).needs(backend);
        assert!(needs("needs etcd: cargo xtask test --backend etcd", "etcd"));
        assert!(needs("needs Consul and etcd: ...", "consul"));
        assert!(!needs("needs etcdkeeper", "etcd"));
        assert!(!needs("takes an hour", "etcd"));
        let any_version = "needs etcd of any version: cargo xtask test --backend etcd";
        assert!(needs(any_version, "etcd"));
        let is_run_once = |reason| test(reason).needs_any_version();
        assert!(is_run_once(any_version));
        assert!(!is_run_once("needs etcd: of any version"));
        assert!(!is_run_once("takes an hour"));
    }
}
