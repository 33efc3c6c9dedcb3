//! The process that stops the command in time. No runtime, no second thread and no lock that another could hold: one `poll` for
//! all that can happen.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, getpid, kill_process_group, set_child_subreaper, waitpgid,
};
use rustix::thread::set_name;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use sd_core::{BootClock, Clock, Moment};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::low_level::pipe;

use super::{Ended, LAUNCHER, Orders, Report, THIS_PROGRAM, end_group};
use crate::failure::Failure;

/// Runs the command until its end or until it has to end. What orders and reports go through is standard input.
pub(super) fn run(command: &[OsString]) -> ExitCode {
    match Watchdog::new().and_then(|watchdog| watchdog.guard(command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => Failure::new(format!("cannot guard the command: {error}")).exit(),
    }
}

struct Watchdog {
    socket: BufReader<UnixStream>,
    /// Readable after a signal that asks us to stop.
    stop: UnixStream,
    /// Readable after a child has ended.
    children: UnixStream,
    /// Counts the time that the machine sleeps, too.
    timer: OwnedFd,
}

/// What is known of the command.
struct Guarding {
    group: Pid,
    orders: Orders,
    /// How the command itself ended; others of its group may be left.
    status: Option<WaitStatus>,
    /// Whether it was told to stop, so that its status means nothing.
    stopped: bool,
    /// Whether the group was told.
    asked: bool,
}

impl Watchdog {
    fn new() -> io::Result<Self> {
        // How it is listed by ps. Nothing depends on it.
        let _ = set_name(c"sdctl-watchdog");
        set_child_subreaper(Some(getpid()))?;
        let socket = io::stdin().as_fd().try_clone_to_owned()?;
        Ok(Self {
            socket: BufReader::new(UnixStream::from(socket)),
            stop: signals(&[SIGTERM, SIGINT, SIGHUP, SIGQUIT])?,
            children: signals(&[SIGCHLD])?,
            timer: timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC)?,
        })
    }

    fn guard(mut self, command: &[OsString]) -> io::Result<()> {
        let Some(orders) = self.next_orders() else {
            return Err(io::Error::other("sdctl starts this itself"));
        };
        if BootClock.now() >= orders.stop_at {
            self.report(Report::Ended(Ended::Stopped));
            return Ok(());
        }
        let group = start(command)?;
        self.report(Report::Started(group));
        let mut guarding = Guarding {
            group,
            orders,
            status: None,
            stopped: false,
            asked: false,
        };
        let watched = self.watch(&mut guarding);
        end_group(group);
        watched?;
        self.report(Report::Ended(guarding.ended()));
        Ok(())
    }

    /// Returns when nothing is left of the group, or when that has to be brought about.
    fn watch(&mut self, guarding: &mut Guarding) -> io::Result<()> {
        loop {
            self.set_timer(guarding.next())?;
            let [orders, stop, children] = self.wait()?;
            // Before the clock is looked at: new orders may have come in time.
            if orders {
                self.take_orders(guarding);
            }
            if stop {
                drain(&mut self.stop);
                guarding.stop(BootClock.now());
            }
            if children {
                drain(&mut self.children);
                if guarding.reap() {
                    return Ok(());
                }
            }
            let now = BootClock.now();
            if now >= guarding.orders.kill_at {
                guarding.stopped |= guarding.status.is_none();
                return Ok(());
            }
            if now >= guarding.orders.stop_at {
                guarding.ask();
            }
        }
    }

    /// Waits until there is something to do. Tells whether there are orders, whether we are to stop, and whether a child has ended.
    fn wait(&self) -> io::Result<[bool; 3]> {
        let [socket, stop, children, timer] = [
            self.socket.get_ref().as_fd(),
            self.stop.as_fd(),
            self.children.as_fd(),
            self.timer.as_fd(),
        ]
        .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        let mut fds = [socket, stop, children, timer];
        loop {
            match poll(&mut fds, None) {
                Ok(_) => break,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let [socket, stop, children, _] = fds;
        Ok([socket, stop, children].map(|fd| !fd.revents().is_empty()))
    }

    fn set_timer(&self, at: Moment) -> io::Result<()> {
        let at = at.since_start();
        let value = Timespec {
            tv_sec: i64::try_from(at.as_secs()).unwrap_or(i64::MAX),
            // Zero would mean never.
            tv_nsec: i64::from(at.subsec_nanos().max(1)),
        };
        let once = Itimerspec {
            it_interval: Timespec::default(),
            it_value: value,
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &once)?;
        Ok(())
    }

    /// Takes all orders that have come.
    fn take_orders(&mut self, guarding: &mut Guarding) {
        loop {
            match self.next_orders() {
                Some(orders) => guarding.obey(orders),
                None => return guarding.stop(BootClock.now()),
            }
            if self.socket.buffer().is_empty() {
                return;
            }
        }
    }

    /// `None` if `sdctl` has died.
    fn next_orders(&mut self) -> Option<Orders> {
        let mut line = String::new();
        self.socket.read_line(&mut line).ok()?;
        line.strip_suffix('\n')?.parse().ok()
    }

    fn report(&self, report: Report) {
        // `sdctl` may have died.
        let _ = writeln!(self.socket.get_ref(), "{report}");
    }
}

impl Guarding {
    /// The next moment at which something has to be done.
    fn next(&self) -> Moment {
        if self.asked {
            self.orders.kill_at
        } else {
            self.orders.stop_at
        }
    }

    /// Once the command has to stop, the time for that only gets shorter.
    fn obey(&mut self, orders: Orders) {
        if self.asked {
            self.orders.kill_at = self.orders.kill_at.min(orders.kill_at);
        } else {
            self.orders = orders;
        }
    }

    fn stop(&mut self, now: Moment) {
        self.orders = self.orders.at_once(now);
    }

    /// Asks the group to stop.
    fn ask(&mut self) {
        if !self.asked {
            self.asked = true;
            self.stopped |= self.status.is_none();
            // It fails if all are dead, and then that is about to be noticed.
            let _ = kill_process_group(self.group, Signal::TERM);
        }
    }

    /// Takes note of those that have died. Returns whether nothing is left of the group.
    fn reap(&mut self) -> bool {
        loop {
            match waitpgid(self.group, WaitOptions::NOHANG) {
                Ok(Some((process, status))) if process == self.group => {
                    self.status = Some(status);
                    // What the command leaves behind has no business without it.
                    self.stop(BootClock.now());
                }
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) => return false,
                Err(_) => return true,
            }
        }
    }

    fn ended(&self) -> Ended {
        match self.status {
            Some(status) if !self.stopped => Ended::Exited(exit_status(status)),
            _ => Ended::Stopped,
        }
    }
}

/// As shells tell it.
fn exit_status(status: WaitStatus) -> u8 {
    let code = status.exit_status();
    let code = code.or_else(|| status.terminating_signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok())
        .unwrap_or(u8::MAX)
}

/// Starts the launcher of the command. Must be called by the main thread: the kernel kills the command when the thread that
/// started it ends.
fn start(command: &[OsString]) -> io::Result<Pid> {
    let child = Command::new(THIS_PROGRAM)
        .arg0("sdctl")
        .arg(LAUNCHER)
        .arg(getpid().as_raw_pid().to_string())
        .args(command)
        .stdin(Stdio::null())
        .process_group(0)
        .spawn()?;
    Ok(Pid::from_child(&child))
}

/// A socket that can be read after any of these signals, which no longer end the process.
fn signals(signals: &[i32]) -> io::Result<UnixStream> {
    let (read, write) = UnixStream::pair()?;
    for signal in signals {
        pipe::register(*signal, write.try_clone()?)?;
    }
    read.set_nonblocking(true)?;
    Ok(read)
}

fn drain(socket: &mut UnixStream) {
    while matches!(socket.read(&mut [0; 64]), Ok(1..)) {}
}
