//! What goes to stderr. Nothing reaches it unescaped, and one that cannot be written to, as on a full disk, changes nothing else.

use std::io::{self, Write};

use sd_core::Printable;
use tracing_subscriber::EnvFilter;

/// Tells a person one line.
pub(crate) fn tell(line: &str) {
    let _ = writeln!(io::stderr(), "sdctl: {}", Printable(line));
}

/// Logs what was asked for. By default that is nothing, since a failure is one line, and of a service how it fares.
pub(crate) fn start(verbose: u8, is_service: bool) {
    let filter = match verbose {
        0 if is_service => "info",
        0 => return,
        1 => {
            "sdctl=debug,sd_core=debug,sd_cluster=debug,sd_consul=debug,sd_dns=debug,sd_etcd=debug,sd_election=debug,sd_redis=debug,sd_zk=debug"
        }
        _ => "trace",
    };
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        // Colours are escape sequences, which this log has none of.
        .with_ansi(false)
        .with_writer(|| Log(io::stderr()))
        .init();
}

/// Takes one event at each call, and writes it on one line.
struct Log<W>(W);

impl<W: Write> Write for Log<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let _ = writeln!(self.0, "{}", Printable(text.trim_end()));
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let _ = self.0.flush();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_whatever_a_library_puts_into_it() {
        let mut written = Vec::new();
        let event = "DEBUG h2: key=\u{1b}[2J\nERROR forged \u{202e}\n";
        Log(&mut written).write_all(event.as_bytes()).unwrap();
        assert_eq!(
            String::from_utf8(written).unwrap(),
            "DEBUG h2: key=\\u{1b}[2J\\nERROR forged \\u{202e}\n"
        );
    }
}
