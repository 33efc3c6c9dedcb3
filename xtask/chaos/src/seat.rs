//! Where one process after the other sits, with links to the servers that stay.

use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;

use crate::Result;
use crate::child::Brief;
use crate::history::Event;
use crate::link::{Break, Link};
use crate::plan::Plan;
use crate::process::{Process, Role};
use crate::scene::Chronicle;

/// A seat and the process in it.
pub(crate) struct Seat {
    pub(crate) process: Process,
    pub(crate) name: String,
    role: Role,
    links: Vec<Link>,
    listens_at: Option<SocketAddr>,
    starts: u32,
}

/// What starting a process takes.
pub(crate) struct Starter<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) register: Option<SocketAddr>,
    pub(crate) chronicle: &'a Chronicle,
    /// Where the processes log.
    pub(crate) folder: &'a Path,
}

impl Seat {
    pub(crate) async fn open(
        starter: &Starter<'_>,
        (name, role): (String, Role),
        servers: &[SocketAddr],
        listens_at: Option<SocketAddr>,
        seed: u64,
    ) -> Result<Self> {
        let mut links = Vec::new();
        for address in servers {
            links.push(Link::to(*address, starter.plan.backend.question()).await?);
        }
        Ok(Self {
            process: starter.start(&name, role, (&links, listens_at), 1, seed)?,
            name,
            role,
            links,
            listens_at,
            starts: 1,
        })
    }

    /// kill -9, and a new process in its place.
    pub(crate) async fn replace(&mut self, starter: &Starter<'_>, seed: u64) -> Result<()> {
        self.process.kill().await?;
        starter.chronicle.tell(self.process.name(), Event::Killed);
        self.restart(starter, seed).map(drop)
    }

    /// A new process in the place of one that is not needed any more. Returns the old one.
    pub(crate) fn restart(&mut self, starter: &Starter<'_>, seed: u64) -> Result<Process> {
        self.starts += 1;
        let place = (&self.links[..], self.listens_at);
        let new = starter.start(&self.name, self.role, place, self.starts, seed)?;
        Ok(std::mem::replace(&mut self.process, new))
    }

    pub(crate) fn freeze(&self, chronicle: &Chronicle) -> Result<()> {
        // Before and after, so that nothing of the pause is outside.
        chronicle.tell(self.process.name(), Event::Frozen);
        self.process.freeze()
    }

    pub(crate) fn thaw(&self, chronicle: &Chronicle) -> Result<()> {
        self.process.thaw()?;
        chronicle.tell(self.process.name(), Event::Thawed);
        Ok(())
    }

    pub(crate) async fn break_links(&mut self, how: Break) -> Result<()> {
        for link in &mut self.links {
            link.break_it(how).await?;
        }
        Ok(())
    }

    /// # Errors
    /// They were not broken until now.
    pub(crate) async fn heal_links(&mut self) -> Result<()> {
        let mut were_broken = Ok(());
        for link in &mut self.links {
            were_broken = were_broken.and(link.heal().await);
        }
        were_broken
    }
}

impl Starter<'_> {
    fn start(
        &self,
        name: &str,
        role: Role,
        (links, listens_at): (&[Link], Option<SocketAddr>),
        nth: u32,
        seed: u64,
    ) -> Result<Process> {
        let name = format!("{name}.{nth}");
        let log = File::create(self.folder.join(format!("{name}.log")))?;
        // Before: what it does must not seem to come first.
        self.chronicle.tell(&name, Event::Started);
        let backend = self.plan.backend;
        let endpoints = links.iter().map(|link| backend.endpoint(link.address()));
        let brief = Brief {
            name,
            parent: std::process::id(),
            backend,
            endpoints: endpoints.collect(),
            register: self.register,
            listens_at,
            ttl: backend.ttl(),
            lock_delay: self.plan.lock_delay,
            seed,
        };
        Process::start(role, &brief, self.chronicle.sender(), log)
    }
}
