//! A crate's README is shown on docs.rs and crates.io, where the rest of the repository is not: a link to a file leads nowhere there.

use std::fs;

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;

/// Fails if the README of a published crate links to a file.
pub(super) fn check(workspace: &Workspace) -> Result<()> {
    let published = workspace
        .packages
        .iter()
        .filter(|package| package.is_published());
    for package in published {
        let readme = package.manifest_path.with_file_name("README.md");
        let text = fs::read_to_string(&readme)
            .with_context(|| format!("cannot read {}", readme.display()))?;
        if let Some(link) = to_files(&text).next() {
            bail!(
                "{} links to {link}, which is not there on docs.rs and crates.io: name it in words",
                readme.display()
            );
        }
    }
    Ok(())
}

/// The links to files. Those to items of a crate have `::` or are one word, which rustdoc checks.
fn to_files(readme: &str) -> impl Iterator<Item = &str> {
    let behind = readme.split("](").skip(1);
    let links = behind.filter_map(|rest| rest.split([')', '\n']).next());
    links.filter(|link| {
        let is_elsewhere = link.contains("://") || link.starts_with('#');
        !is_elsewhere && link.contains(['/', '.'])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_files_are_told_from_those_to_pages_sections_and_items() {
        let readme = "[a](../docs/a.md) [b](b.md#c) [`d`](D::e) [f](#f) [g](https://g.example/g.md) [h](H) f[x](y)";
        let found: Vec<_> = to_files(readme).collect();
        assert_eq!(found, ["../docs/a.md", "b.md#c"]);
    }
}
