//! How many instructions one unary call takes, counted by callgrind: unlike time, this hardly differs from run to run and from machine to
//! machine, so that growth is seen.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::ci::outcome::Outcome;
use crate::command::Run;
use crate::servers::{debian, script};
use crate::tools::Tools;
use crate::workspace::Workspace;

const PROGRAM: &str = "instructions";
/// Optimised, but quick to build.
const PROFILE: &str = "instructions";

/// The difference between these is counted: what is done once cancels out.
const CALLS: [u32; 2] = [200, 1_200];

/// What a call of ours may take of those of tonic's plain channel, the server's side included in both. It took 0.84: 106 900 of 126 600.
/// Two runs of one program differ by a thousandth at most, two builds of the same code in other folders by two hundredths.
const MOST_OF_TONICS: f64 = 0.95;

pub(crate) fn count(workspace: &Workspace) -> Result<Outcome> {
    let valgrind = valgrind(workspace)?;
    let build = workspace.cargo("build")?;
    build
        .args(["--profile", PROFILE, "--package", PROGRAM])
        .succeed()?;
    let program = workspace.target.join(PROFILE).join(PROGRAM);
    let count = |client: &str| instructions_of_a_call(workspace, &valgrind, &program, client);
    let (ours, tonics) = (count("ours")?, count("tonic")?);
    let ratio = ours / tonics;
    println!(
        "instructions of a unary call: {ours:.0}, through tonic's Channel {tonics:.0}; {ratio:.3} of it, at most {MOST_OF_TONICS}"
    );
    if ratio > MOST_OF_TONICS {
        bail!(
            "a call takes {ours:.0} instructions, which is {ratio:.3} of tonic's {tonics:.0}, and may be {MOST_OF_TONICS}"
        );
    }
    Ok(Outcome::Done)
}

fn instructions_of_a_call(
    workspace: &Workspace,
    valgrind: &Path,
    program: &Path,
    client: &str,
) -> Result<f64> {
    let [few, many] = CALLS;
    let count = |calls: u32| {
        let file = workspace.target.join(format!("callgrind-{client}-{calls}"));
        Run::new(valgrind)
            .args(["--quiet", "--tool=callgrind"])
            .arg(format!("--callgrind-out-file={}", file.display()))
            .arg(program)
            .arg(client)
            .arg(calls.to_string())
            .succeed()?;
        let written = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        total(&written).with_context(|| format!("no totals in {}", file.display()))
    };
    let counted = count(many)?.saturating_sub(count(few)?);
    Ok(f64::from(u32::try_from(counted)?) / f64::from(many - few))
}

/// The instructions of the whole run, of what callgrind has written.
fn total(written: &str) -> Option<u64> {
    let line = written
        .lines()
        .find_map(|line| line.strip_prefix("totals: "));
    line?.trim().parse().ok()
}

/// The one on PATH, or Debian's, unpacked.
fn valgrind(workspace: &Workspace) -> Result<PathBuf> {
    let on_path = Command::new("valgrind").arg("--version").output();
    if on_path.is_ok_and(|output| output.status.success()) {
        return Ok("valgrind".into());
    }
    let folder = Tools::open(workspace)?.get("valgrind-debian", |folder| {
        debian::unpack(&["valgrind"], folder)?;
        let lines = "VALGRIND_LIB=$here/usr/libexec/valgrind\nexport VALGRIND_LIB\nexec \"$here/usr/bin/valgrind\" \"$@\"\n";
        script::write(&folder.join("valgrind"), lines)
    })?;
    Ok(folder.join("valgrind"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_found_in_what_callgrind_writes() {
        let written =
            "# callgrind format\nversion: 1\nevents: Ir\nfn=(0) main\n16 5\n\ntotals: 1234567\n";
        assert_eq!(total(written), Some(1_234_567));
        assert_eq!(total("version: 1\n"), None);
    }
}
