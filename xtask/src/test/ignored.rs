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
        let Some(rest) = self.reason.strip_prefix("needs ") else {
            return false;
        };
        let first = rest.split(|c: char| !c.is_ascii_alphanumeric()).next();
        first.is_some_and(|first| first.eq_ignore_ascii_case(backend))
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
        let needs = |reason: &str, backend| {
            let test = Ignored {
                executable: &executable,
                name: String::new(),
                reason: reason.to_owned(),
            };
            test.needs(backend)
        };
        assert!(needs("needs etcd: cargo xtask test --backend etcd", "etcd"));
        assert!(needs("needs Consul and etcd: ...", "consul"));
        assert!(!needs("needs etcdkeeper", "etcd"));
        assert!(!needs("takes an hour", "etcd"));
    }
}
