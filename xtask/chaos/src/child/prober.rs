//! What a leader does: writes to the register while it believes that it leads, as a program would.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use sd_core::FencingToken;

use crate::Result;
use crate::child::Brief;
use crate::child::belief::Holds;
use crate::history::Election;
use crate::register::Write as Request;

const WRITE_EVERY: Duration = Duration::from_millis(10);
/// The register is in the process that started this one. Without an answer for this long the run is broken.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// A connection to the register.
#[derive(Debug)]
pub(super) struct Register {
    node: Arc<str>,
    election: Election,
    connection: BufReader<TcpStream>,
}

impl Register {
    pub(super) fn connect(brief: &Brief, election: Election) -> Result<Self> {
        let address = brief.register.ok_or("a candidate needs the register")?;
        let connection = TcpStream::connect(address)?;
        connection.set_nodelay(true)?;
        connection.set_read_timeout(Some(ANSWER_WITHIN))?;
        Ok(Self {
            node: brief.name.as_str().into(),
            election,
            connection: BufReader::new(connection),
        })
    }

    /// Returns when the register has taken or refused the write.
    pub(super) fn write(&mut self, token: &FencingToken, fenced: bool) -> Result<()> {
        let mut line = serde_json::to_vec(&Request {
            node: self.node.to_string(),
            election: self.election,
            token: token.clone(),
            fenced,
        })?;
        line.push(b'\n');
        self.connection.get_mut().write_all(&line)?;
        let mut answer = String::new();
        self.connection.read_line(&mut answer)?;
        if answer.is_empty() {
            return Err("the register is gone".into());
        }
        Ok(())
    }
}

/// Writes until it is stopped or the term is believed in no longer.
#[derive(Debug)]
pub(super) struct Prober {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Register>>,
}

impl Prober {
    pub(super) fn start(mut register: Register, token: FencingToken, holds: Holds) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            write_while(&mut register, &token, &holds, &stopped)?;
            Ok(register)
        });
        Self { stop, thread }
    }

    /// Returns when no write is under way any more.
    pub(super) fn stop(self) -> Result<Register> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| "the prober panicked")?
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a thread of its own, and no runtime"
)]
fn write_while(
    register: &mut Register,
    token: &FencingToken,
    holds: &Holds,
    stop: &AtomicBool,
) -> Result<()> {
    while !stop.load(Ordering::Relaxed) {
        for fenced in [true, false] {
            if holds() {
                register.write(token, fenced)?;
            }
        }
        thread::sleep(WRITE_EVERY);
    }
    Ok(())
}
