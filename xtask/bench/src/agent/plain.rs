//! What it takes at least to tell many readers: a process that writes the same bytes to each of its connections.

use std::io::{self, BufRead, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::watch;

use crate::Result;

/// As many as the agent has for connections.
const THREADS: usize = 2;

/// The process, as seen by the bench. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Plain {
    child: Child,
    stdin: ChildStdin,
    pub(super) address: SocketAddr,
}

impl Plain {
    /// Starts this program again, as one that serves so many readers.
    pub(super) fn start(readers: usize) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(format!("--write-plainly={readers}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take().ok_or("no stdin")?;
        let stdout = child.stdout.take().ok_or("no stdout")?;
        let mut address = String::new();
        BufReader::new(stdout).read_line(&mut address)?;
        let address = address.trim().parse()?;
        Ok(Self {
            child,
            stdin,
            address,
        })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Has it write an event of so many bytes to each reader.
    pub(super) fn send(&mut self, change: usize, bytes: usize) -> Result<()> {
        writeln!(self.stdin, "{change} {bytes}")?;
        Ok(self.stdin.flush()?)
    }

    /// What is in the event of a change.
    pub(super) fn text(change: usize) -> String {
        format!("id: {change}\n")
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the process does: says where it listens, and then writes whatever it is told to by lines, until there are no more.
pub(crate) fn write_plainly(readers: usize) -> Result<()> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .build()?;
    let (chunks, told) = watch::channel(chunk(0, 100));
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
    writeln!(io::stdout(), "{}", listener.local_addr()?)?;
    runtime.block_on(async {
        for _ in 0..readers {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            // It ends with its reader.
            tokio::spawn(serve(stream, told.clone()));
        }
        Ok::<_, io::Error>(())
    })?;
    for line in io::stdin().lines() {
        let line = line?;
        let (change, bytes) = line.split_once(' ').ok_or("a line without a length")?;
        chunks.send_replace(chunk(change.parse()?, bytes.parse()?));
    }
    Ok(())
}

async fn serve(mut stream: TcpStream, mut chunks: watch::Receiver<Arc<str>>) -> io::Result<()> {
    // What it asks for is one thing.
    if stream.read(&mut [0; 1024]).await? == 0 {
        return Ok(());
    }
    let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head).await?;
    chunks.mark_changed();
    while chunks.changed().await.is_ok() {
        let chunk = Arc::clone(&chunks.borrow_and_update());
        stream.write_all(chunk.as_bytes()).await?;
    }
    Ok(())
}

/// An event of this many bytes, as a chunk of an answer.
fn chunk(change: usize, bytes: usize) -> Arc<str> {
    let beginning = format!("{}event: snapshot\ndata: ", Plain::text(change));
    let rest = "x".repeat(bytes.saturating_sub(beginning.len()));
    format!("{bytes:x}\r\n{beginning}{rest}\r\n").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_its_length_and_names_its_change() {
        for bytes in [100, 250_000] {
            let chunk = chunk(7, bytes);
            let (length, event) = chunk.split_once("\r\n").unwrap();
            assert_eq!(length, format!("{bytes:x}"));
            assert_eq!(event.len(), bytes + "\r\n".len());
            assert!(event.contains(&Plain::text(7)));
        }
    }
}
