//! The programs that cargo built for the tests.
//!
//! They are run by themselves and not through `cargo test`, which runs one after another, and with `-p` would choose other
//! features of the shared dependencies and build everything once more.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::command::Run;
use crate::workspace::{Target, Workspace};

/// What a build has made.
#[derive(Debug)]
pub(crate) struct Built {
    /// By package and target.
    pub(crate) tests: Vec<Executable>,
    /// Programs that are no tests.
    pub(crate) programs: Vec<Binary>,
}

/// One test program.
#[derive(Debug)]
pub(crate) struct Executable {
    pub(crate) package: String,
    /// The test's file. `None` of those that lie beside the code.
    pub(crate) test: Option<String>,
    /// What is tested if it is a program.
    program: Option<String>,
    path: PathBuf,
    /// Where cargo would run it.
    folder: PathBuf,
    /// What cargo would tell it.
    variables: Vec<(String, String)>,
}

/// One program.
#[derive(Debug)]
pub(crate) struct Binary {
    pub(crate) package: String,
    pub(crate) name: String,
    pub(crate) path: PathBuf,
}

#[cfg(test)]
impl Executable {
    /// One that cannot be run.
    pub(crate) fn named(package: &str, test: Option<&str>) -> Self {
        Self {
            package: package.to_owned(),
            test: test.map(str::to_owned),
            program: None,
            path: PathBuf::new(),
            folder: PathBuf::new(),
            variables: Vec::new(),
        }
    }
}

impl Executable {
    /// `sd-etcd faults`, `sd-etcd beside the code`, `sd-sidecar beside the code of sdctl`
    pub(crate) fn title(&self) -> String {
        let package = &self.package;
        match (&self.test, &self.program) {
            (Some(test), _) => format!("{package} {test}"),
            (None, Some(program)) => format!("{package} beside the code of {program}"),
            (None, None) => format!("{package} beside the code"),
        }
    }

    pub(crate) fn command(&self) -> Run {
        let mut command = Run::new(&self.path).current_dir(&self.folder);
        // Ours are those of xtask, which cargo runs.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_BIN_") {
                command = command.env_remove(&name);
            }
        }
        command.shared_envs(self.variables.iter().map(|(name, value)| (name, value)))
    }

    /// What it prints for these arguments, which make it run no test.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Result<String> {
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

/// Builds the tests that `chosen` names, all if it names none, and the programs that they start.
///
/// Always of the whole workspace, so that another choice finds built what it has in common with this one.
pub(crate) fn build(workspace: &Workspace, chosen: &[&str]) -> Result<Built> {
    let messages = workspace
        .cargo("test")?
        .args(["--workspace", "--all-features", "--no-run"])
        .arg("--message-format=json-render-diagnostics")
        .args(chosen)
        .output()?;
    from_messages(workspace, &messages)
}

/// Builds one program, with the features and dependencies of the tests, but with `wrapper` in place of the compiler of our own crates.
pub(crate) fn program(workspace: &Workspace, name: &str, wrapper: &Path) -> Result<PathBuf> {
    let messages = workspace
        .cargo("test")?
        .env("RUSTC_WORKSPACE_WRAPPER", &wrapper.to_string_lossy())
        .args(["--workspace", "--all-features", "--no-run"])
        .arg("--message-format=json-render-diagnostics")
        .args(["--bin", name])
        .output()?;
    let mut programs = messages.lines().filter_map(artifact);
    let program = programs.find(|artifact| artifact.target.name == name);
    let program = program.with_context(|| format!("cargo has built no program {name}"))?;
    Ok(program.executable.into())
}

fn from_messages(workspace: &Workspace, messages: &str) -> Result<Built> {
    let mut tests = Vec::new();
    let mut programs = Vec::new();
    for line in messages.lines() {
        let Some(artifact) = artifact(line) else {
            continue;
        };
        let path = artifact.executable;
        let mut packages = workspace.packages.iter();
        let package = packages.find(|known| known.id == artifact.package_id);
        let package = package.with_context(|| format!("{path} belongs to no known package"))?;
        let is = |kind: &str| artifact.target.kind.iter().any(|one| one == kind);
        if artifact.profile.test {
            let manifest = package.manifest_path.to_string_lossy().into_owned();
            let folder = package.folder().to_string_lossy().into_owned();
            let variables = [
                ("CARGO_MANIFEST_DIR", folder),
                ("CARGO_MANIFEST_PATH", manifest),
                ("CARGO_PKG_NAME", package.name.clone()),
                ("CARGO_PKG_VERSION", package.version.clone()),
            ];
            let variables = variables.map(|(name, value)| (name.to_owned(), value));
            tests.push(Executable {
                package: package.name.clone(),
                test: is("test").then(|| artifact.target.name.clone()),
                program: is("bin").then_some(artifact.target.name),
                path: path.into(),
                folder: package.folder().to_owned(),
                variables: variables.into(),
            });
        } else if is("bin") {
            programs.push(Binary {
                package: package.name.clone(),
                name: artifact.target.name,
                path: path.into(),
            });
        }
    }
    for test in tests.iter_mut().filter(|test| test.test.is_some()) {
        let own = programs.iter().filter(|own| own.package == test.package);
        test.variables.extend(own.map(|own| {
            let path = own.path.to_string_lossy().into_owned();
            (format!("CARGO_BIN_EXE_{}", own.name), path)
        }));
    }
    // Cargo tells of them as they are finished.
    tests.sort_by_key(Executable::title);
    Ok(Built { tests, programs })
}

/// A program that cargo tells of.
#[derive(Debug, Deserialize)]
struct Artifact {
    package_id: String,
    target: Target,
    profile: Profile,
    executable: String,
}

#[derive(Debug, Deserialize)]
struct Profile {
    test: bool,
}

/// If this message of cargo's tells of a program.
fn artifact(message: &str) -> Option<Artifact> {
    serde_json::from_str(message).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workspace() -> Workspace {
        let package = |name: &str| {
            format!(
                r#"{{"name":"{name}","id":"{name}-id","version":"0.1.0","manifest_path":"/w/{name}/Cargo.toml",
                    "rust_version":null,"features":{{}},"targets":[]}}"#
            )
        };
        let json = format!(
            r#"{{"workspace_root":"/w","target_directory":"/t","packages":[{},{}]}}"#,
            package("p"),
            package("q")
        );
        serde_json::from_str(&json).unwrap()
    }

    fn message(package: &str, kind: &str, target: &str, test: bool) -> String {
        format!(
            r#"{{"reason":"compiler-artifact","package_id":"{package}-id","target":{{"kind":["{kind}"],"name":"{target}"}},"profile":{{"test":{test}}},"executable":"/t/{target}-1","fresh":true}}"#
        )
    }

    #[test]
    fn programs_are_told_apart_and_put_in_order() {
        let messages = [
            message("q", "lib", "q", true),
            message("p", "test", "faults", true),
            r#"{"reason":"compiler-artifact","package_id":"p-id","target":{"kind":["lib"],"name":"p"},"profile":{"test":false},"executable":null}"#.to_owned(),
            message("p", "bin", "tool", false),
            message("p", "lib", "p", true),
            message("p", "bin", "tool", true),
            r#"{"reason":"build-finished","success":true}"#.to_owned(),
        ];
        let built = from_messages(&workspace(), &messages.join("\n")).unwrap();
        let titles: Vec<String> = built.tests.iter().map(Executable::title).collect();
        assert_eq!(
            titles,
            [
                "p beside the code",
                "p beside the code of tool",
                "p faults",
                "q beside the code"
            ]
        );
        let [tool] = &built.programs[..] else {
            panic!("{built:?}");
        };
        assert_eq!((&*tool.package, &*tool.name), ("p", "tool"));
    }

    #[test]
    fn a_test_is_told_what_cargo_would_tell_it() {
        let messages = [
            message("p", "bin", "tool", false),
            message("q", "bin", "other", false),
            message("p", "test", "faults", true),
            message("p", "lib", "p", true),
        ];
        let built = from_messages(&workspace(), &messages.join("\n")).unwrap();
        let told = |nth: usize| {
            let variables = built.tests[nth].variables.iter();
            variables.map(|(name, value)| format!("{name}={value}"))
        };
        let of_package = [
            "CARGO_MANIFEST_DIR=/w/p",
            "CARGO_MANIFEST_PATH=/w/p/Cargo.toml",
            "CARGO_PKG_NAME=p",
            "CARGO_PKG_VERSION=0.1.0",
        ];
        assert_eq!(told(0).collect::<Vec<_>>(), of_package);
        let of_test: Vec<String> = told(1).collect();
        assert_eq!(of_test[..4], of_package);
        assert_eq!(of_test[4..], ["CARGO_BIN_EXE_tool=/t/tool-1"]);
        assert_eq!(built.tests[1].folder, PathBuf::from("/w/p"));
    }

    #[test]
    fn a_program_of_an_unknown_package_is_an_error() {
        let error = from_messages(&workspace(), &message("r", "lib", "r", true)).unwrap_err();
        assert!(error.to_string().contains("/t/r-1"), "{error}");
    }
}
