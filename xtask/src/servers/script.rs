//! Shell scripts that run an unpacked program as if it were installed. They name what lies beside them by `$here`, because a program is
//! moved once it is whole.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};

/// Writes a script of these lines to `file`.
pub(crate) fn write(file: &Path, lines: &str) -> Result<()> {
    let text = format!("#!/bin/sh\nhere=$(dirname -- \"$0\")\n{lines}");
    let write = || {
        fs::write(file, text)?;
        fs::set_permissions(file, fs::Permissions::from_mode(0o755))
    };
    write().with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_script_finds_what_lies_beside_it_after_it_was_moved() {
        let name = format!("xtask script {}", std::process::id());
        let (made, moved) = ["made", "moved"]
            .map(|end| std::env::temp_dir().join(format!("{name} {end}")))
            .into();
        fs::create_dir(&made).unwrap();
        write(&made.join("run"), "exec cat \"$here/beside\" \"$@\"\n").unwrap();
        fs::rename(&made, &moved).unwrap();
        fs::write(moved.join("beside"), "beside, ").unwrap();
        fs::write(moved.join("a b"), "told").unwrap();
        let output = Command::new(moved.join("run"))
            .arg(moved.join("a b"))
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "beside, told");
        fs::remove_dir_all(moved).unwrap();
    }
}
