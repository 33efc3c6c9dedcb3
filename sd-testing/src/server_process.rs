//! A real server in a process of its own, which a test can kill, freeze and restart.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use async_trait::async_trait;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use sd_core::{Error, ErrorKind, Result};
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

const OP: &str = "test server";
/// From start to ready. A JVM on a busy machine takes long.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// From a polite request to the end.
const STOPPED_WITHIN: Duration = Duration::from_secs(30);
const PROBE_WITHIN: Duration = Duration::from_secs(2);
const PROBE_EVERY: Duration = Duration::from_millis(20);
/// How much of a log an error shows.
const TAIL_LINES: usize = 15;

/// How to start a server, and when it is ready.
#[async_trait]
pub trait ServerProgram: Send + Sync + 'static {
    /// The name in errors.
    fn name(&self) -> &str;

    /// Writes what the server reads at its start into the folder `data`, which exists. Called before each start; what the server
    /// may have changed must stay.
    ///
    /// # Errors
    /// When a file cannot be written.
    fn prepare(&self, _data: &Path) -> io::Result<()> {
        Ok(())
    }

    /// The command that starts the server in the foreground, with its data in the folder `data`.
    fn command(&self, data: &Path) -> Command;

    /// Asks the server once whether it is ready. Called again until it is. Must be cancel-safe.
    ///
    /// # Errors
    /// Why the server is not ready yet.
    async fn ready(&self) -> Result<()>;
}

/// A running server with a temporary folder of its own. Dropping it kills the server and removes the folder.
#[derive(Debug)]
pub struct ServerProcess<P: ServerProgram> {
    program: P,
    child: Option<Child>,
    folder: TempDir,
}

impl<P: ServerProgram> ServerProcess<P> {
    /// Starts the server and waits until it is ready.
    ///
    /// # Errors
    /// When the server cannot be started, ends by itself, or is not ready within a minute. The error has the end of the
    /// server's log.
    ///
    /// # Cancel safety
    /// Dropping the future ends the server.
    pub async fn launch(program: P) -> Result<Self> {
        let mut server = Self::new(program)?;
        server.restart().await?;
        Ok(server)
    }

    /// One that does not run yet.
    pub(crate) fn new(program: P) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("sd-test-")
            .tempdir()
            .map_err(unavailable)?;
        Ok(Self {
            program,
            child: None,
            folder,
        })
    }

    /// The program.
    pub fn program(&self) -> &P {
        &self.program
    }

    /// The process id. `None` while killed.
    pub fn id(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// The folder with the server's data.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// What the server has written to its standard output and error, across all restarts.
    pub fn log(&self) -> String {
        let bytes = fs::read(self.log_path()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Ends the process without notice, as kill -9 does. Returns when it is gone.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().map_err(unavailable)?;
            child.wait().map_err(unavailable)?;
        }
        Ok(())
    }

    /// Asks the process to end, as SIGTERM does, so that it can say goodbye to other servers. Returns when the process is gone.
    ///
    /// # Errors
    /// When the process does not run, or does not end within 30 s.
    ///
    /// # Cancel safety
    /// After a dropped call the process may or may not end.
    pub async fn stop(&mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        let give_up_at = Instant::now() + STOPPED_WITHIN;
        while let Some(child) = &mut self.child {
            if child.try_wait().map_err(unavailable)?.is_some() {
                self.child = None;
            } else if Instant::now() >= give_up_at {
                return Err(self.failed(&format!("still runs {STOPPED_WITHIN:?} after SIGTERM")));
            } else {
                sleep(PROBE_EVERY).await;
            }
        }
        Ok(())
    }

    /// Suspends the process, as SIGSTOP does. Returns when the process has stopped.
    ///
    /// # Errors
    /// When the process does not run.
    pub fn freeze(&self) -> Result<()> {
        let process = self.signal(Signal::STOP)?;
        // The signal takes effect with a delay, and the test goes on at once.
        let seen = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(process), seen).map_err(|e| unavailable(e.into()))?;
        Ok(())
    }

    /// Resumes a frozen process, as SIGCONT does.
    ///
    /// # Errors
    /// When the process does not run.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT).map(drop)
    }

    /// Kills the server if it runs, starts it with the same data, and waits until it is ready.
    ///
    /// # Errors
    /// As [`launch`](Self::launch).
    ///
    /// # Cancel safety
    /// Dropping the future leaves a started server running.
    pub async fn restart(&mut self) -> Result<()> {
        self.begin_restart()?;
        self.wait_until_ready().await
    }

    /// As [`restart`](Self::restart), but without the data.
    ///
    /// # Errors
    /// As [`launch`](Self::launch).
    ///
    /// # Cancel safety
    /// Dropping the future leaves a started server running.
    pub async fn restart_empty(&mut self) -> Result<()> {
        self.kill()?;
        fs::remove_dir_all(self.data()).map_err(unavailable)?;
        self.restart().await
    }

    /// The first half of [`restart`](Self::restart), up to the start.
    pub(crate) fn begin_restart(&mut self) -> Result<()> {
        self.kill()?;
        self.spawn().map_err(unavailable)
    }

    fn spawn(&mut self) -> io::Result<()> {
        let data = self.data();
        fs::create_dir_all(&data)?;
        self.program.prepare(&data)?;
        let log = self.open_log()?;
        let mut command = self.program.command(&data);
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        self.child = Some(command.spawn()?);
        Ok(())
    }

    pub(crate) async fn wait_until_ready(&mut self) -> Result<()> {
        let give_up_at = Instant::now() + READY_WITHIN;
        loop {
            let ended = match &mut self.child {
                Some(child) => child.try_wait().map_err(unavailable)?,
                None => None,
            };
            if let Some(status) = ended {
                self.child = None;
                return Err(self.failed(&format!("ended by itself, {status}")));
            }
            let why = match timeout(PROBE_WITHIN, self.program.ready()).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => error.report().to_string(),
                Err(_) => "no answer".to_owned(),
            };
            if Instant::now() >= give_up_at {
                return Err(self.failed(&format!("not ready after {READY_WITHIN:?}, {why}")));
            }
            sleep(PROBE_EVERY).await;
        }
    }

    fn failed(&self, what: &str) -> Error {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
        Error::new(ErrorKind::Unavailable, OP).because(format!(
            "{}: {what}; the end of its log:\n{tail}",
            self.program.name()
        ))
    }

    fn signal(&self, signal: Signal) -> Result<Pid> {
        let Some(child) = &self.child else {
            return Err(Error::new(ErrorKind::NotFound, OP).because(format!(
                "{} does not run: restart it first",
                self.program.name()
            )));
        };
        let process = Pid::from_child(child);
        kill_process(process, signal).map_err(|e| unavailable(e.into()))?;
        Ok(process)
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn open_log(&self) -> io::Result<File> {
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path())
    }
}

impl<P: ServerProgram> Drop for ServerProcess<P> {
    fn drop(&mut self) {
        // There is no caller left to tell.
        let _ = self.kill();
    }
}

fn unavailable(error: io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, OP).with_source(error)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    /// Counts its starts in its data folder, and is ready once it has written a file there.
    #[derive(Debug)]
    struct Shell {
        script: &'static str,
        mark: PathBuf,
    }

    #[async_trait]
    impl ServerProgram for Shell {
        fn name(&self) -> &'static str {
            "shell"
        }

        fn prepare(&self, data: &Path) -> io::Result<()> {
            let starts = fs::read_to_string(data.join("starts")).unwrap_or_default();
            fs::write(data.join("prepared"), starts)
        }

        fn command(&self, data: &Path) -> Command {
            let mut command = Command::new("sh");
            command.args(["-c", self.script]).current_dir(data);
            command.env("MARK", &self.mark);
            command
        }

        async fn ready(&self) -> Result<()> {
            fs::remove_file(&self.mark).map_err(unavailable)
        }
    }

    fn shell(script: &'static str) -> (Shell, TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("mark");
        (Shell { script, mark }, folder)
    }

    const COUNTS_STARTS: &str = "echo x >> starts; touch \"$MARK\"; exec sleep 600";

    fn state_of(process: u32) -> Option<char> {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        stat.rsplit(") ").next()?.chars().next()
    }

    #[tokio::test]
    async fn is_killed_restarted_frozen_and_ended_with_its_owner() {
        let (program, _folder) = shell(COUNTS_STARTS);
        let mut server = ServerProcess::launch(program).await.unwrap();
        let starts = |server: &ServerProcess<Shell>| {
            fs::read_to_string(server.data().join("starts"))
                .unwrap()
                .lines()
                .count()
        };
        let first = server.id().unwrap();

        server.kill().unwrap();
        assert_eq!((server.id(), state_of(first)), (None, None));
        assert_eq!(server.freeze().unwrap_err().kind(), ErrorKind::NotFound);
        server.restart().await.unwrap();
        assert_eq!(starts(&server), 2);
        let prepared = fs::read_to_string(server.data().join("prepared"));
        assert_eq!(prepared.unwrap(), "x\n", "prepared before each start");
        server.restart_empty().await.unwrap();
        assert_eq!(starts(&server), 1);

        let last = server.id().unwrap();
        server.freeze().unwrap();
        assert_eq!(state_of(last), Some('T'));
        server.thaw().unwrap();
        assert_ne!(state_of(last), Some('T'));
        server.freeze().unwrap();
        let folder = server.data();
        drop(server);
        assert_eq!((state_of(last), folder.exists()), (None, false));
    }

    #[tokio::test]
    async fn is_stopped_politely_and_started_again() {
        let says_goodbye =
            "trap 'touch goodbye; exit' TERM; touch \"$MARK\"; while :; do sleep 0.05; done";
        let (program, _folder) = shell(says_goodbye);
        let mut server = ServerProcess::launch(program).await.unwrap();
        let process = server.id().unwrap();
        server.stop().await.unwrap();
        assert_eq!((server.id(), state_of(process)), (None, None));
        assert!(server.data().join("goodbye").exists());
        assert_eq!(server.stop().await.unwrap_err().kind(), ErrorKind::NotFound);
        server.restart().await.unwrap();
    }

    #[tokio::test]
    async fn a_server_that_ends_at_its_start_is_an_error_with_the_end_of_its_log() {
        let (program, _folder) = shell("echo 'bad flag' >&2; exit 3");
        let error = ServerProcess::launch(program).await.unwrap_err();
        let text = error.report().to_string();
        assert!(
            text.contains("shell: ended by itself") && text.contains("bad flag"),
            "{text}"
        );
        assert!(
            text.contains(&std::process::ExitStatus::from_raw(3 << 8).to_string()),
            "{text}"
        );
    }
}
