//! Knot DNS, which is authoritative for one zone that clients on this machine may change while it runs.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::local_server::{CHECKED_WITHIN, LocalServer, write_once};
use crate::tcp::{self, End};

/// How a Knot DNS is started.
#[derive(Clone, Debug)]
pub struct Knot {
    program: PathBuf,
    port: u16,
    records: Vec<String>,
}

impl Knot {
    /// The zone that it serves. That a name is not there holds for a second.
    pub const ZONE: &str = "sd.test.";

    /// A zone whose file is not there, so that it fails at every question about it.
    pub const UNLOADED_ZONE: &str = "unloaded.test.";

    /// The `knotd` at `program`, on a port of 127.0.0.1.
    ///
    /// # Errors
    /// There is no free port.
    pub fn new<E>(
        program: impl Into<PathBuf>,
        mut free_port: impl FnMut() -> Result<u16, E>,
    ) -> Result<Self, E> {
        Ok(Self {
            program: program.into(),
            port: free_port()?,
            records: Vec::new(),
        })
    }

    /// Adds a line to the zone with which it first starts, for instance `greeter 30 A 10.0.0.7`.
    #[must_use]
    pub fn with_record(mut self, line: impl Into<String>) -> Self {
        self.records.push(line.into());
        self
    }

    /// Asks the one at a URL whether it serves, and returns the version that it reports: `Knot DNS 3.2.6`. Any process may have
    /// started it.
    ///
    /// # Errors
    /// Why it does not serve.
    pub fn serving_at(url: &str) -> io::Result<String> {
        let server = tcp::address_of("dns", url)?;
        check(server)?;
        version(server)
    }
}

impl LocalServer for Knot {
    fn name(&self) -> &'static str {
        "dns"
    }

    fn prepare(&self, data: &Path) -> io::Result<()> {
        let (folder, port, zone) = (data.display(), self.port, Self::ZONE);
        let unloaded = Self::UNLOADED_ZONE;
        let config = format!(
            "server:\n    rundir: \"{folder}\"\n    listen: 127.0.0.1@{port}\n    udp-workers: 1\n    tcp-workers: 2\n    \
             background-workers: 1\ndatabase:\n    storage: \"{folder}\"\nlog:\n  - target: stderr\n    any: warning\nacl:\n  \
             - id: this-machine\n    address: 127.0.0.0/8\n    action: [update, transfer]\nzone:\n  - domain: {zone}\n    storage: \
             \"{folder}\"\n    file: zone\n    acl: this-machine\n    zonefile-sync: -1\n    semantic-checks: off\n  \
             - domain: {unloaded}\n    storage: \"{folder}\"\n    file: none\n"
        );
        write_once(&data.join("knot.conf"), &config)?;
        let mut records = vec![
            format!("$ORIGIN {zone}"),
            "@ 1 SOA ns hostmaster 1 3600 600 86400 1".to_owned(),
            "@ 1 NS ns".to_owned(),
            "ns 1 A 127.0.0.1".to_owned(),
        ];
        records.extend_from_slice(&self.records);
        write_once(&data.join("zone"), &(records.join("\n") + "\n"))
    }

    fn command(&self, data: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("-c").arg(data.join("knot.conf"));
        command
    }

    fn url(&self) -> String {
        format!("dns://{}", self.address())
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    fn serving(&self) -> io::Result<()> {
        check(self.address())
    }
}

const SOA: u16 = 6;
const TXT: u16 = 16;
const INTERNET: u16 = 1;
const CHAOS: u16 = 3;

/// Whether it knows its zone.
fn check(server: SocketAddr) -> io::Result<()> {
    ask(server, Knot::ZONE, SOA, INTERNET).map(drop)
}

/// What it says of itself.
fn version(server: SocketAddr) -> io::Result<String> {
    let answer = ask(server, "version.server.", TXT, CHAOS)?;
    let told = String::from_utf8_lossy(&answer);
    let version = told.find("Knot DNS").and_then(|at| told.get(at..));
    version.map(str::to_owned).ok_or_else(|| {
        io::Error::new(
            ErrorKind::InvalidData,
            "it does not say that it is Knot DNS",
        )
    })
}

/// The answer to one question, with a record in it.
fn ask(server: SocketAddr, name: &str, record_type: u16, class: u16) -> io::Result<Vec<u8>> {
    let question = question(name, record_type, class);
    let end = End::Whole(|answer| body(answer).is_some());
    let answer = tcp::ask(server, &question, end, Instant::now() + CHECKED_WITHIN)?;
    let answer = body(&answer).unwrap_or_default();
    match *answer {
        [_, _, _, flags, _, _, high, low, ..] if flags % 16 == 0 && (high, low) != (0, 0) => {
            Ok(answer.to_vec())
        }
        _ => Err(io::Error::other(format!(
            "{server} does not answer for {name}"
        ))),
    }
}

/// A question as RFC 1035 has it over TCP: its length, a header of twelve bytes, and the name in labels.
fn question(name: &str, record_type: u16, class: u16) -> Vec<u8> {
    let mut message = vec![0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split_terminator('.') {
        message.extend(u8::try_from(label.len()));
        message.extend(label.bytes());
    }
    message.push(0);
    message.extend(record_type.to_be_bytes());
    message.extend(class.to_be_bytes());
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    [length.to_be_bytes().to_vec(), message].concat()
}

/// The message behind its length. None if it is not whole.
fn body(answer: &[u8]) -> Option<&[u8]> {
    let (length, rest) = answer.split_first_chunk::<2>()?;
    rest.get(..usize::from(u16::from_be_bytes(*length)))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::local_server::tests::{line, ports_from, prepared};
    use crate::tcp::tests::server_that_answers;

    fn knot() -> Knot {
        let Ok(knot) = Knot::new("/sbin/knotd", ports_from(11));
        knot
    }

    #[test]
    fn one_zone_may_be_changed_from_this_machine() {
        let knot = knot().with_record("greeter 30 A 10.0.0.7");
        assert_eq!(line(&knot), "-c /data/knot.conf");
        let config = prepared(&knot, "knot.conf");
        assert!(config.contains("listen: 127.0.0.1@11\n"), "{config}");
        assert!(config.contains("action: [update, transfer]\n"), "{config}");
        assert!(config.contains("domain: unloaded.test.\n"), "{config}");
        let zone = prepared(&knot, "zone");
        assert!(zone.starts_with("$ORIGIN sd.test.\n@ 1 SOA "), "{zone}");
        assert!(zone.ends_with("\ngreeter 30 A 10.0.0.7\n"), "{zone}");
        assert_eq!(knot.url(), "dns://127.0.0.1:11");
    }

    #[test]
    fn one_that_does_not_know_its_zone_does_not_serve() {
        // Refused, without a record.
        let (server, asked) = server_that_answers(b"\x00\x06\x00\x01", |stream| {
            stream.write_all(&[0, 12, 0, 7, 0x80, 5, 0, 1, 0, 0, 0, 0, 0, 0])
        });
        let error = Knot::serving_at(&format!("dns://{server}")).unwrap_err();
        assert!(error.to_string().contains("sd.test."), "{error}");
        assert!(asked.join().unwrap().contains("\u{2}sd\u{4}test\u{0}"));
    }

    #[test]
    fn half_an_answer_is_none() {
        let question = question("a.", SOA, INTERNET);
        assert_eq!(question.len(), 2 + 12 + 3 + 4);
        for length in 0..question.len() {
            assert_eq!(body(&question[..length]), None);
        }
        assert_eq!(body(&question), question.get(2..));
    }
}
