//! The check that runs a program.

use std::env;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, kill_process_group, waitpgid};
use sd_core::Endpoint;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::probe::Answer;
#[cfg(target_os = "linux")]
use super::process::Process;

/// What a program finds in its environment, if we have it. The rest is ours, and there may be secrets in it.
const PASSED_ON: [&str; 6] = ["PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR"];
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// How much of what a program writes is kept. The rest is read and thrown away, so that no program waits for us.
const KEPT_BYTES: usize = 256;

/// How long after its end what a program has written is waited for. Only what has left its process group can still hold the pipe.
const LAST_WORDS: Duration = Duration::from_millis(50);

/// How long killed processes are waited for, which takes longer only if one waits for a broken disk or the like.
const REAPED_WITHIN: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// How many programs may be starting in this process. A start may hang for longer than its check waits, and nothing can end it.
static STARTS: Semaphore = Semaphore::const_new(48);

#[derive(Debug)]
pub(super) struct Program {
    command: Vec<String>,
    /// Where others dial the instance.
    address: String,
}

impl Program {
    pub(super) fn new(command: &[String], target: &Endpoint) -> Self {
        Self {
            command: command.to_vec(),
            address: target.to_string(),
        }
    }

    /// Runs it once. If the future is dropped, the program and what it leaves in its process group are killed.
    pub(super) async fn attempt(&self) -> Answer {
        let Some((program, arguments)) = self.command.split_first() else {
            return Err("no program".to_owned());
        };
        let mut command = Command::new(program);
        command.args(arguments).env_clear();
        command.env("PATH", DEFAULT_PATH);
        command.envs(
            PASSED_ON
                .iter()
                .filter_map(|name| Some((name, env::var_os(name)?))),
        );
        command.env("SD_CHECK_ADDRESS", &self.address);
        let Ok(permit) = STARTS.acquire().await else {
            return Err(format!("cannot run {program}"));
        };
        // The kernel may have to fetch the program over a network.
        let starting = move || {
            let _permit = permit;
            Running::start(command)
        };
        let started = spawn_blocking(starting).await;
        let started = started.unwrap_or_else(|error| Err(io::Error::other(error)));
        let running = started.map_err(|error| format!("cannot run {program}: {error}"))?;
        let ended = running.finish().await;
        let (status, output) =
            ended.map_err(|error| format!("cannot wait for {program}: {error}"))?;
        let colon = if output.trim().is_empty() { "" } else { ": " };
        let told = format!("{}{colon}{}", how_it_ended(status), output.trim());
        if status.success() {
            Ok(told)
        } else {
            Err(told)
        }
    }
}

fn how_it_ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

/// A program that runs, and what it writes.
struct Running {
    leader: Leader,
    output: Receiver,
}

impl Running {
    fn start(mut command: Command) -> io::Result<Self> {
        let (ours, its) = io::pipe()?;
        command
            .stdin(Stdio::null())
            .stdout(its.try_clone()?)
            .stderr(its)
            .process_group(0)
            .kill_on_drop(true);
        let output = Receiver::from_owned_fd(ours.into())?;
        let leader = Leader::new(command.spawn()?)?;
        // The command holds ends of the pipe as well, and is dropped here.
        Ok(Self { leader, output })
    }

    /// Waits for the end of the program, and kills what it leaves in its group.
    async fn finish(self) -> io::Result<(ExitStatus, String)> {
        let Self { leader, mut output } = self;
        let mut kept = Vec::new();
        let dead = CancellationToken::new();
        let ending = async {
            let status = leader.ended().await;
            dead.cancel();
            status
        };
        let reading = async {
            let late = async {
                dead.cancelled().await;
                sleep(LAST_WORDS).await;
            };
            tokio::select! {
                biased;
                () = keep_reading(&mut output, &mut kept) => {}
                () = late => {}
            }
        };
        let (status, ()) = tokio::join!(ending, reading);
        Ok((status?, String::from_utf8_lossy(&kept).into_owned()))
    }
}

/// The program, which leads a process group of its own. Dropping it kills the group.
struct Leader {
    child: Option<Child>,
    group: Pid,
    #[cfg(target_os = "linux")]
    process: Process,
}

impl Leader {
    fn new(child: Child) -> io::Result<Self> {
        let gone = || io::Error::from(io::ErrorKind::NotFound);
        let pid = child.id().ok_or_else(gone)?;
        let group = i32::try_from(pid).ok().and_then(Pid::from_raw);
        Ok(Self {
            group: group.ok_or_else(gone)?,
            #[cfg(target_os = "linux")]
            process: Process::open(pid)?.ok_or_else(gone)?,
            child: Some(child),
        })
    }

    async fn ended(mut self) -> io::Result<ExitStatus> {
        #[cfg(target_os = "linux")]
        self.process.ended().await;
        #[cfg(not(target_os = "linux"))]
        if let Some(child) = &mut self.child {
            child.wait().await?;
        }
        self.kill();
        match self.child.take() {
            Some(child) => reap(child, self.group).await,
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Kills the group. No other can have the number before its leader was waited for.
    fn kill(&self) {
        // It fails if all are dead.
        let _ = kill_process_group(self.group, Signal::KILL);
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        if let Some(child) = self.child.take() {
            self.kill();
            if let Ok(runtime) = Handle::try_current() {
                // It ends as soon as the kernel has ended the processes.
                runtime.spawn(timeout(REAPED_WITHIN, reap(child, self.group)));
            }
        }
    }
}

/// Waits for the leader of a group that was killed, and for those of it that are our children: if this is the first process of a
/// container, or has asked for that, it adopts orphans.
async fn reap(mut leader: Child, group: Pid) -> io::Result<ExitStatus> {
    let status = leader.wait().await?;
    let others = async {
        loop {
            match waitpgid(group, WaitOptions::NOHANG) {
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) => sleep(LOOK_AGAIN).await,
                Err(_) => return,
            }
        }
    };
    let _ = timeout(REAPED_WITHIN, others).await;
    Ok(status)
}

/// Reads to the end.
async fn keep_reading(output: &mut Receiver, kept: &mut Vec<u8>) {
    let mut part = [0; 1024];
    while let Ok(length @ 1..) = output.read(&mut part).await {
        let room = KEPT_BYTES.saturating_sub(kept.len());
        kept.extend(part.iter().take(length.min(room)));
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::fs;
    use std::path::Path;

    use rustix::process::{getpid, kill_process, set_child_subreaper};
    use tempfile::TempDir;

    use super::*;

    /// For anything but a bug, on a busy machine.
    const LIMIT: Duration = Duration::from_secs(30);

    fn program(words: &[&str]) -> Program {
        let words: Vec<_> = words.iter().map(|&word| word.to_owned()).collect();
        Program::new(&words, &"10.0.0.7:80".parse().unwrap())
    }

    async fn shell(script: &str) -> Answer {
        timeout(LIMIT, program(&["sh", "-c", script]).attempt())
            .await
            .unwrap()
    }

    /// The processes that a script has written down, one on each line.
    async fn pids(file: &Path, count: usize) -> Vec<u32> {
        let read = async {
            loop {
                let text = fs::read_to_string(file).unwrap_or_default();
                let whole = text.ends_with('\n');
                let pids: Vec<_> = text.lines().filter_map(|line| line.parse().ok()).collect();
                if whole && pids.len() == count {
                    return pids;
                }
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(LIMIT, read).await.expect("they are told")
    }

    async fn is_gone(pid: u32) {
        let gone = async {
            // One that is dead and was waited for is not there at all.
            while Path::new(&format!("/proc/{pid}")).exists() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(LIMIT, gone).await.expect("it is gone");
    }

    #[tokio::test]
    async fn the_status_decides_and_what_it_says_is_kept() {
        for (script, answer) in [
            ("exit 0", Ok("exit status 0")),
            (
                "echo fine; echo and well >&2",
                Ok("exit status 0: fine\nand well"),
            ),
            ("echo disk full; exit 3", Err("exit status 3: disk full")),
            ("kill -9 $$", Err("ended by signal 9")),
            (
                "exec /nonexistent/program 2> /dev/null",
                Err("exit status 127"),
            ),
        ] {
            let expected = answer.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(shell(script).await, expected, "{script}");
        }
        let error = program(&["/nonexistent/program"]).attempt().await;
        let error = error.unwrap_err();
        assert!(
            error.starts_with("cannot run /nonexistent/program: "),
            "{error}"
        );
    }

    #[tokio::test]
    async fn no_shell_reads_the_arguments() {
        let program = program(&["printf", "%s|", "$HOME `id`", "a b"]);
        let answer = program.attempt().await.unwrap();
        assert_eq!(answer, "exit status 0: $HOME `id`|a b|");
    }

    #[tokio::test]
    async fn of_our_environment_only_what_was_named_is_passed_on() {
        let is_passed_on = |name: &str| PASSED_ON.contains(&name);
        let mut ours = env::vars().map(|(name, _)| name);
        assert!(
            ours.any(|name| !is_passed_on(&name)),
            "nothing to keep back"
        );
        let answer = shell("env | cut -d= -f1 | sort | tr '\\n' ' '")
            .await
            .unwrap();
        let names = answer.strip_prefix("exit status 0: ").unwrap();
        let others = ["SD_CHECK_ADDRESS", "PWD", "SHLVL", "_", "OLDPWD"];
        for name in names.split(' ') {
            assert!(
                PASSED_ON.contains(&name) || others.contains(&name),
                "{names}"
            );
        }
        let address = shell("echo $SD_CHECK_ADDRESS").await.unwrap();
        assert_eq!(address, "exit status 0: 10.0.0.7:80");
    }

    #[tokio::test]
    async fn however_much_it_writes_it_is_not_held_up_and_little_is_kept() {
        let answer = shell("head -c 10000000 /dev/zero | tr '\\0' x; exit 1").await;
        let answer = answer.unwrap_err();
        assert_eq!(answer.len(), "exit status 1: ".len() + KEPT_BYTES);
    }

    #[tokio::test]
    async fn what_it_leaves_in_its_group_is_killed_and_what_left_it_is_not_waited_for() {
        // As the first process of a container is.
        set_child_subreaper(Some(getpid())).unwrap();
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("pids");
        let script = format!("sleep 1000 & echo $! > {}", file.display());
        shell(&script).await.unwrap();
        is_gone(pids(&file, 1).await[0]).await;

        // This one holds the pipe, and goes where a group's signals do not reach it.
        let away = folder.path().join("away");
        let script = format!(
            "setsid sh -c 'echo $$; touch {0}; exec sleep 1000' & while [ ! -e {0} ]; do sleep 0.01; done",
            away.display()
        );
        let told = shell(&script).await.unwrap();
        let pid = told.strip_prefix("exit status 0: ").unwrap();
        let pid = Pid::from_raw(pid.parse().unwrap()).unwrap();
        kill_process(pid, Signal::KILL).unwrap();
    }

    #[tokio::test]
    async fn one_that_is_given_up_is_killed_with_its_children_and_waited_for() {
        set_child_subreaper(Some(getpid())).unwrap();
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("pids");
        let script = format!(
            "trap '' TERM; sleep 1000 & printf '%s\\n%s\\n' $$ $! > {}; wait",
            file.display()
        );
        let program = program(&["sh", "-c", &script]);
        let mut attempt = Box::pin(program.attempt());
        let pids = tokio::select! {
            answer = &mut attempt => panic!("{answer:?}"),
            pids = pids(&file, 2) => pids,
        };
        drop(attempt);
        for pid in pids {
            is_gone(pid).await;
        }
    }
}
