//! A command that is shown before it runs, and told to stop when xtask is.

use std::ffi::OsStr;
use std::fmt::{self, Display};
use std::fs::File;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};

use crate::interrupt::{self, Forwarding};
use crate::shell::quote;

/// One program run to its end.
#[derive(Debug)]
pub(crate) struct Run {
    command: Command,
    /// As one would type it in a shell: `cd folder && `, and the rest.
    place: String,
    line: String,
}

impl Run {
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Self {
        Self::of(Command::new(program))
    }

    /// One that was put together elsewhere. Variables of its own are not shown.
    pub(crate) fn of(mut command: Command) -> Self {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let words = words.map(|word| quote(&word.to_string_lossy()).into_owned());
        let line = words.collect::<Vec<_>>().join(" ");
        // A group of its own: see `interrupt`. Nothing that runs here may wait for a keyboard.
        command.process_group(0).stdin(Stdio::null());
        Self {
            command,
            place: String::new(),
            line,
        }
    }

    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.line += " ";
        self.line += &quote(&arg.as_ref().to_string_lossy());
        self.command.arg(arg);
        self
    }

    pub(crate) fn args<S: AsRef<OsStr>>(self, args: impl IntoIterator<Item = S>) -> Self {
        args.into_iter().fold(self, Self::arg)
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.line = format!("{name}={} {}", quote(value), self.line);
        self.command.env(name, value);
        self
    }

    /// Lets it inherit no variable of this name.
    pub(crate) fn env_remove(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    /// Variables that many commands share. They are not shown: who finds them shows them once.
    pub(crate) fn shared_envs<K, V>(mut self, variables: impl IntoIterator<Item = (K, V)>) -> Self
    where
        K: AsRef<OsStr>,
        V: AsRef<OsStr>,
    {
        self.command.envs(variables);
        self
    }

    pub(crate) fn current_dir(mut self, folder: impl AsRef<Path>) -> Self {
        let folder = folder.as_ref();
        if std::env::current_dir().is_ok_and(|current| current != folder) {
            let folder = folder.to_string_lossy();
            self.place = format!("cd {} && ", quote(&folder));
        }
        self.command.current_dir(folder);
        self
    }

    /// Runs it with its output where ours goes.
    ///
    /// # Errors
    /// It cannot be started, or it fails.
    pub(crate) fn succeed(mut self) -> Result<()> {
        // Standard output is kept for what a shell evaluates, so a command's output goes to standard error.
        self.command.stdout(std::io::stderr());
        let (mut child, _forwarding) = self.start()?;
        let status = child.wait()?;
        self.expect_success(status)
    }

    /// Runs it and returns its standard output.
    ///
    /// # Errors
    /// It cannot be started, or it fails.
    pub(crate) fn output(mut self) -> Result<String> {
        self.command.stdout(Stdio::piped());
        let (mut child, _forwarding) = self.start()?;
        let mut text = String::new();
        if let Some(mut stdout) = child.stdout.take() {
            stdout
                .read_to_string(&mut text)
                .with_context(|| format!("cannot read what `{self}` prints"))?;
        }
        let status = child.wait()?;
        self.expect_success(status)?;
        Ok(text)
    }

    /// Starts it with its output for us to read, and shows nothing. Signals are passed on while the second value lives.
    ///
    /// # Errors
    /// It cannot be started.
    pub(crate) fn start_piped(mut self) -> Result<(Child, Forwarding)> {
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = self.spawn_silently()?;
        let forwarding = Forwarding::to(&child);
        Ok((child, forwarding))
    }

    /// Starts it to outlive us: signals are not passed on to it, and all it prints goes to the file `log`.
    ///
    /// # Errors
    /// It cannot be started, or `log` not be created.
    pub(crate) fn detach(mut self, log: &Path) -> Result<Child> {
        let file = File::create(log).with_context(|| format!("cannot create {}", log.display()))?;
        self.command.stdout(file.try_clone()?).stderr(file);
        self.spawn()
    }

    fn start(&mut self) -> Result<(Child, Forwarding)> {
        let child = self.spawn()?;
        let forwarding = Forwarding::to(&child);
        Ok((child, forwarding))
    }

    fn spawn(&mut self) -> Result<Child> {
        eprintln!("$ {self}");
        self.spawn_silently()
    }

    fn spawn_silently(&mut self) -> Result<Child> {
        interrupt::check()?;
        self.command
            .spawn()
            .with_context(|| format!("cannot start `{self}`"))
    }

    fn expect_success(&self, status: ExitStatus) -> Result<()> {
        interrupt::check()?;
        if !status.success() {
            bail!("`{self}` failed: {status}");
        }
        Ok(())
    }
}

impl Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.place, self.line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_shown_as_a_shell_would_take_it() {
        let run = Run::new("cargo").args(["test", "a b"]).env("X", "1 2");
        assert_eq!(run.to_string(), "X='1 2' cargo test 'a b'");
        let mut command = Command::new("a program");
        command.args(["-a", "b c"]);
        assert_eq!(Run::of(command).to_string(), "'a program' -a 'b c'");
    }

    #[test]
    fn output_and_failure_are_the_commands_own() {
        let output = Run::new("sh").args(["-c", "echo a; echo b >&2"]).output();
        assert_eq!(output.unwrap(), "a\n");
        let error = Run::new("sh").args(["-c", "exit 3"]).output().unwrap_err();
        assert!(error.to_string().contains("exit status: 3"), "{error}");
    }
}
