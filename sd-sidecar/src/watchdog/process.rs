//! The process that stops the command in time. No runtime, no second thread and no lock that another could hold: one `poll` for
//! all that can happen.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, getpgid, getpid, kill_process_group, set_child_subreaper,
    wait,
};
use rustix::thread::set_name;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use sd_core::clock::{BootClock, Clock, Moment};
use signal_hook::consts::{
    SIGALRM, SIGCHLD, SIGHUP, SIGINT, SIGIO, SIGPROF, SIGQUIT, SIGTERM, SIGTSTP, SIGTTIN, SIGTTOU,
    SIGUSR1, SIGUSR2, SIGVTALRM, SIGXCPU, SIGXFSZ,
};
use signal_hook::flag;
use signal_hook::low_level::pipe;

use super::descendants::{self, LOOK_AGAIN};
use super::program::{LAUNCHER, THIS_PROGRAM};
use super::protocol::{Ended, Orders};
use crate::failure::Failure;
use crate::signals::hang_up_is_ignored;

/// All of them. The C library keeps the first ones for itself: glibc two, musl three.
const REAL_TIME_SIGNALS: std::ops::RangeInclusive<i32> = 32..=64;

/// Runs the command until its end or until it has to end. What orders and the report go through is standard input.
pub(super) fn run(command: &[OsString]) -> ExitCode {
    match Watchdog::new().and_then(|watchdog| watchdog.supervise(command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => Failure::new(format!("cannot supervise the command: {error}")).exit(),
    }
}

struct Watchdog {
    socket: BufReader<UnixStream>,
    /// Whether `sdctl` has died, so that no more orders come.
    orphaned: bool,
    /// Readable after a child has ended.
    children: UnixStream,
    /// Counts the time that the machine sleeps, too.
    timer: OwnedFd,
}

/// What is known of the command.
struct Supervision {
    command: Pid,
    orders: Orders,
    step: Step,
    /// How the command itself ended; what it has started may be left.
    status: Option<WaitStatus>,
    /// Whether it was still running when it was told to stop.
    stopped: bool,
}

/// What was done to end it.
#[derive(Clone, Copy, Debug)]
enum Step {
    Nothing,
    Asked,
    Killed { look_again_at: Moment },
}

impl Watchdog {
    fn new() -> io::Result<Self> {
        // How it is listed by ps. Nothing depends on it.
        let _ = set_name(c"sdctl-watchdog");
        set_child_subreaper(Some(getpid()))?;
        let not_told = |error| {
            io::Error::other(format!(
                "/proc does not list child processes, which needs CONFIG_PROC_CHILDREN: {error}"
            ))
        };
        descendants::children().map_err(not_told)?;
        let socket = io::stdin().as_fd().try_clone_to_owned()?;
        stay_through_signals()?;
        let (children, child_has_ended) = UnixStream::pair()?;
        children.set_nonblocking(true)?;
        pipe::register(SIGCHLD, child_has_ended)?;
        Ok(Self {
            socket: BufReader::new(UnixStream::from(socket)),
            orphaned: false,
            children,
            timer: timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC)?,
        })
    }

    fn supervise(mut self, command: &[OsString]) -> io::Result<()> {
        let Some(orders) = self.next_orders() else {
            return Err(io::Error::other(
                "no orders came from sdctl, which starts this process itself",
            ));
        };
        let ended = if BootClock.now() < orders.stop_at {
            let mut supervision = Supervision::new(start(command)?, orders);
            self.watch(&mut supervision)?;
            supervision.ended()
        } else {
            Ended {
                status: 0,
                stopped: true,
            }
        };
        // `sdctl` may have died.
        let _ = writeln!(self.socket.get_ref(), "{ended}");
        Ok(())
    }

    /// Returns when nothing is left of the command.
    fn watch(&mut self, supervision: &mut Supervision) -> io::Result<()> {
        loop {
            self.set_timer(supervision.next())?;
            let [orders, children] = self.wait()?;
            // Before the clock is looked at: new orders may have come in time.
            if orders {
                self.take_orders(supervision);
            }
            if children {
                drain(&mut self.children);
            }
            if supervision.reap() {
                return Ok(());
            }
            supervision.act(BootClock.now())?;
        }
    }

    /// Waits until there is something to do. Tells whether there are orders, and whether a child has ended.
    fn wait(&self) -> io::Result<[bool; 2]> {
        let [socket, children, timer] = [
            self.socket.get_ref().as_fd(),
            self.children.as_fd(),
            self.timer.as_fd(),
        ]
        .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        let mut fds = [children, timer, socket];
        // A socket that has ended would be ready for ever.
        let listened = if self.orphaned {
            &mut fds[..2]
        } else {
            &mut fds[..]
        };
        loop {
            match poll(listened, None) {
                Ok(_) => break,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let [children, _, socket] = fds;
        Ok([socket, children].map(|fd| !fd.revents().is_empty()))
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
    fn take_orders(&mut self, supervision: &mut Supervision) {
        loop {
            if let Some(orders) = self.next_orders() {
                supervision.obey(orders);
            } else {
                self.orphaned = true;
                supervision.stop(BootClock.now());
                return;
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
}

impl Supervision {
    fn new(command: Pid, orders: Orders) -> Self {
        Self {
            command,
            orders,
            step: Step::Nothing,
            status: None,
            stopped: false,
        }
    }

    /// The next moment at which something has to be done.
    fn next(&self) -> Moment {
        match self.step {
            Step::Nothing => self.orders.stop_at,
            Step::Asked => self.orders.kill_at,
            Step::Killed { look_again_at } => look_again_at,
        }
    }

    /// Once the command has to stop, the time for that only gets shorter.
    fn obey(&mut self, orders: Orders) {
        if matches!(self.step, Step::Nothing) {
            self.orders = orders;
        } else {
            self.orders.kill_at = self.orders.kill_at.min(orders.kill_at);
        }
    }

    fn stop(&mut self, now: Moment) {
        self.orders = self.orders.at_once(now);
    }

    /// Does what is due.
    fn act(&mut self, now: Moment) -> io::Result<()> {
        let untold = matches!(self.step, Step::Nothing);
        let step = if now >= self.orders.kill_at {
            descendants::kill(&[])?;
            Step::Killed {
                look_again_at: now + LOOK_AGAIN,
            }
        } else if now >= self.orders.stop_at && untold {
            self.ask()?;
            Step::Asked
        } else {
            return Ok(());
        };
        if untold {
            self.stopped = self.status.is_none();
        }
        self.step = step;
        Ok(())
    }

    /// Asks the command and all that it has started to stop.
    fn ask(&self) -> io::Result<()> {
        // Found before anything is sent: who loses its parent meanwhile would have moved.
        let mut apart = descendants::all(&[])?;
        apart.retain(|process| getpgid(Some(*process)) != Ok(self.command));
        // One that is stopped hears it when it goes on.
        for signal in [Signal::TERM, Signal::CONT] {
            // All of the group at once, so that none is forked past it. It fails if all are dead.
            let _ = kill_process_group(self.command, signal);
            descendants::signal(&apart, signal);
        }
        Ok(())
    }

    /// Takes note of those that have died. Returns whether nothing is left.
    fn reap(&mut self) -> bool {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((process, status))) if process == self.command => {
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
        Ended {
            status: self.status.map_or(u8::MAX, exit_status),
            stopped: self.stopped,
        }
    }
}

/// As shells tell it; but a command that dies of a request to stop has stopped, wherever the request came from.
fn exit_status(status: WaitStatus) -> u8 {
    let code = match status.terminating_signal() {
        Some(SIGTERM | SIGINT | SIGHUP) => Some(0),
        Some(signal) => Some(128 + signal),
        None => status.exit_status(),
    };
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

/// What is sent to all processes of a service or of a terminal must neither end nor stop this one before the command. They are caught
/// and not ignored, which the command would inherit.
fn stay_through_signals() -> io::Result<()> {
    let ended_by = [
        SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF, SIGIO,
        SIGXCPU, SIGXFSZ,
    ];
    let stopped_by = [SIGTSTP, SIGTTIN, SIGTTOU];
    let others = [Signal::POWER, Signal::STKFLT].map(Signal::as_raw);
    let signals = ended_by.into_iter().chain(stopped_by).chain(others);
    for signal in signals {
        // One that is ignored is left alone, so that the command ignores it, too.
        if signal != SIGHUP || !hang_up_is_ignored() {
            flag::register(signal, Arc::default())?;
        }
    }
    for signal in REAL_TIME_SIGNALS {
        // One of the C library's own cannot be caught, which is no reason not to start.
        let _ = flag::register(signal, Arc::default());
    }
    Ok(())
}

fn drain(socket: &mut UnixStream) {
    while matches!(socket.read(&mut [0; 64]), Ok(1..)) {}
}
