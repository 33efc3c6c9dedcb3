//! The test programs that cargo built, and the tests in them that wait for a server.
//!
//! Tests that need a server are run by their program and not through `cargo test -p`, which would choose other features
//! of the shared dependencies and build everything once more.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::command::Run;
use crate::workspace::Workspace;

/// One test program.
#[derive(Debug)]
pub(crate) struct Executable {
    pub(crate) package: String,
    path: PathBuf,
    /// Where cargo would run it.
    folder: PathBuf,
}

/// A test that only runs when it is asked for.
#[derive(Debug)]
pub(crate) struct Ignored<'a> {
    pub(crate) executable: &'a Executable,
    pub(crate) name: String,
    /// `needs etcd: cargo xtask test --backend etcd`
    pub(crate) reason: String,
}

impl Executable {
    pub(crate) fn command(&self) -> Run {
        Run::new(&self.path).current_dir(&self.folder)
    }

    /// What it prints for these arguments, which make it run no test.
    fn ask(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new(&self.path)
            .args(arguments)
            .current_dir(&self.folder)
            .output()
            .with_context(|| format!("cannot run {}", self.path.display()))?;
        if !output.status.success() {
            bail!(
                "{} {arguments:?} failed: {}",
                self.path.display(),
                output.status
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
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

/// Builds every test of the workspace.
pub(crate) fn build(workspace: &Workspace) -> Result<Vec<Executable>> {
    let messages = workspace
        .cargo("test")?
        .args(["--workspace", "--all-features", "--no-run"])
        .arg("--message-format=json-render-diagnostics")
        .output()?;
    let mut executables = Vec::new();
    for line in messages.lines() {
        if let Some((package, path)) = test_program(line) {
            let package = workspace.packages.iter().find(|known| known.id == package);
            let package = package.with_context(|| format!("{path} is of no known package"))?;
            executables.push(Executable {
                package: package.name.clone(),
                path: path.into(),
                folder: package.folder().to_owned(),
            });
        }
    }
    Ok(executables)
}

/// All ignored tests, those of one program next to each other.
pub(crate) fn ignored(executables: &[Executable]) -> Result<Vec<Ignored<'_>>> {
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

/// Package id and path, if this message of cargo's tells of a test program.
fn test_program(message: &str) -> Option<(String, String)> {
    #[derive(Deserialize)]
    struct Message {
        package_id: String,
        profile: Profile,
        executable: Option<String>,
    }
    #[derive(Deserialize)]
    struct Profile {
        test: bool,
    }
    let message: Message = serde_json::from_str(message).ok()?;
    let path = message.executable.filter(|_| message.profile.test)?;
    Some((message.package_id, path))
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
    fn only_messages_about_test_programs_count() {
        let test = r#"{"reason":"compiler-artifact","package_id":"p","profile":{"test":true},"executable":"/t/p-1","fresh":true}"#;
        assert_eq!(
            test_program(test),
            Some(("p".to_owned(), "/t/p-1".to_owned()))
        );
        for other in [
            r#"{"reason":"compiler-artifact","package_id":"p","profile":{"test":false},"executable":"/t/p"}"#,
            r#"{"reason":"compiler-artifact","package_id":"p","profile":{"test":true},"executable":null}"#,
            r#"{"reason":"build-finished","success":true}"#,
        ] {
            assert_eq!(test_program(other), None, "{other}");
        }
    }

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
        let executable = Executable {
            package: "p".to_owned(),
            path: PathBuf::new(),
            folder: PathBuf::new(),
        };
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
