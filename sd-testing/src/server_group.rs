//! Several real servers that are one to their clients: an ensemble, a cluster, a primary with its replicas and those that watch it.

use futures_util::future::try_join_all;
use sd_core::Result;

use crate::{ServerProcess, ServerProgram};

/// Running servers that are started at the same time, because none may be ready before others run. Each is killed, frozen and
/// restarted by itself. Dropping the group kills all.
#[derive(Debug)]
pub struct ServerGroup<P: ServerProgram>(Vec<ServerProcess<P>>);

impl<P: ServerProgram> ServerGroup<P> {
    /// Starts all members and waits until each is ready.
    ///
    /// # Errors
    /// When a member cannot be started, ends by itself, or is not ready within a minute. The error has the end of its log.
    ///
    /// # Cancel safety
    /// Dropping the future ends the members.
    pub async fn launch(programs: impl IntoIterator<Item = P>) -> Result<Self> {
        let members = programs.into_iter().map(ServerProcess::new);
        let mut group = Self(members.collect::<Result<_>>()?);
        group.restart_all().await?;
        Ok(group)
    }

    /// The members, in the order in which they were given.
    pub fn members(&self) -> &[ServerProcess<P>] {
        &self.0
    }

    /// The members, to be killed or restarted one by one. One that is ready only with others waits for them when it is restarted: use
    /// [`restart_all`](Self::restart_all) after too many were killed.
    pub fn members_mut(&mut self) -> &mut [ServerProcess<P>] {
        &mut self.0
    }

    /// Kills the members that run, starts all with the same data, and waits until each is ready.
    ///
    /// # Errors
    /// As [`launch`](Self::launch).
    ///
    /// # Cancel safety
    /// Dropping the future leaves started members running.
    pub async fn restart_all(&mut self) -> Result<()> {
        // All end before the first starts again, which would otherwise meet the old processes of the others.
        for member in &mut self.0 {
            member.kill()?;
        }
        for member in &mut self.0 {
            member.begin_restart()?;
        }
        try_join_all(self.0.iter_mut().map(ServerProcess::wait_until_ready)).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::process::Command;

    use async_trait::async_trait;
    use sd_core::{Error, ErrorKind};
    use tempfile::TempDir;

    use super::*;

    /// Ready once every member has left its mark, which goes with its process.
    #[derive(Debug)]
    struct Member {
        own: PathBuf,
        folder: PathBuf,
        all: usize,
    }

    #[async_trait]
    impl ServerProgram for Member {
        fn name(&self) -> &'static str {
            "member"
        }

        fn command(&self, data: &Path) -> Command {
            let mut command = Command::new("sh");
            let script = "set -e; echo x >> starts; echo $$ > \"$OWN\"; exec sleep 600";
            command.args(["-c", script]).current_dir(data);
            command.env("OWN", &self.own);
            command
        }

        async fn ready(&self) -> Result<()> {
            let marks = fs::read_dir(&self.folder).unwrap();
            let alive = marks.filter(|mark| {
                let pid = fs::read_to_string(mark.as_ref().unwrap().path()).unwrap();
                !pid.is_empty() && Path::new("/proc").join(pid.trim()).exists()
            });
            if alive.count() == self.all {
                return Ok(());
            }
            Err(Error::new(ErrorKind::Unavailable, "member"))
        }
    }

    fn members(all: usize) -> (Vec<Member>, TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let member = |number: usize| Member {
            own: folder.path().join(number.to_string()),
            folder: folder.path().to_owned(),
            all,
        };
        ((0..all).map(member).collect(), folder)
    }

    fn starts(group: &ServerGroup<Member>) -> Vec<usize> {
        let files = group.members().iter().map(|m| m.data().join("starts"));
        let starts = files.map(|file| fs::read_to_string(file).unwrap().lines().count());
        starts.collect()
    }

    #[tokio::test]
    async fn members_that_need_each_other_start_together_and_are_killed_one_by_one() {
        let (programs, _folder) = members(3);
        let mut group = ServerGroup::launch(programs).await.unwrap();
        let [first, second, _] = group.members_mut() else {
            panic!("three members");
        };
        first.kill().unwrap();
        second.freeze().unwrap();
        second.thaw().unwrap();
        first.restart().await.unwrap();
        assert_eq!(starts(&group), [2, 1, 1]);
        for member in group.members_mut() {
            member.kill().unwrap();
        }
        group.restart_all().await.unwrap();
        assert_eq!(starts(&group), [3, 2, 2]);
    }

    #[tokio::test]
    async fn a_member_that_ends_at_its_start_fails_the_group() {
        let (mut programs, _folder) = members(2);
        programs[1].own = "/no/such/folder/mark".into();
        let error = ServerGroup::launch(programs).await.unwrap_err();
        let text = error.report().to_string();
        assert!(text.contains("member: ended by itself"), "{text}");
    }
}
