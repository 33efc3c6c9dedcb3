//! Each crate that users build alone, because in a whole workspace one crate lends its dependencies' features to another.

use std::time::Instant;

use anyhow::{Result, bail};

use crate::ci::outcome::Outcome;
use crate::interrupt;
use crate::workspace::{Package, Workspace};

pub(crate) fn check_each(workspace: &Workspace) -> Result<Outcome> {
    let mut failed = Vec::new();
    for package in workspace.packages.iter().filter(|one| is_for_users(one)) {
        for feature in variants(package) {
            let variant = format!("{} with {}", package.name, feature.unwrap_or("none"));
            let start = Instant::now();
            // Clippy, because it can deny warnings in our code alone: what is only used with a feature must be behind it.
            let mut command = workspace
                .cargo("clippy")?
                .args(["--quiet", "--package", &package.name])
                .arg("--no-default-features");
            if let Some(feature) = feature {
                command = command.args(["--features", feature]);
            }
            if command.args(["--", "-D", "warnings"]).succeed().is_err() {
                failed.push(variant.clone());
            }
            eprintln!("{:>4} s  {variant}", start.elapsed().as_secs());
            interrupt::check()?;
        }
    }
    if !failed.is_empty() {
        bail!("does not compile without warnings: {}", failed.join(", "));
    }
    Ok(Outcome::Done)
}

/// What is published, and what the README runs. The tools are built alone by the commands that run them.
fn is_for_users(package: &Package) -> bool {
    package.is_published() || package.name == "examples"
}

/// No feature, then each one. The default set is a selection of these, and `cargo xtask fuzz` builds what is for it.
fn variants(package: &Package) -> impl Iterator<Item = Option<&str>> {
    let features = package.features.keys().map(String::as_str);
    let single = features.filter(|feature| !["default", "fuzzing"].contains(feature));
    let single = single.map(Some);
    std::iter::once(None).chain(single)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_is_checked_bare_and_with_each_feature() {
        let package: Package = serde_json::from_str(
            r#"{"name":"p","id":"p","version":"0.1.0","manifest_path":"/p/Cargo.toml","rust_version":null,"targets":[],
                "features":{"default":["b"],"a":[],"b":["dep:x"],"fuzzing":[]}}"#,
        )
        .unwrap();
        let variants: Vec<_> = variants(&package).collect();
        assert_eq!(variants, [None, Some("a"), Some("b")]);
    }
}
