//! The rights that the README tells operators to give, as it has them.

/// The user that has them.
pub(crate) const USER: &str = "app";
/// How the user logs in, in a URL.
pub(crate) const LOGIN: &str = "app:password@";

/// The words of each `ACL SETUSER app`.
pub(crate) struct Rights {
    pub(crate) services: Vec<&'static str>,
    pub(crate) elections: Vec<&'static str>,
    pub(crate) cluster: Vec<&'static str>,
    pub(crate) heartbeats: Vec<&'static str>,
    pub(crate) sentinels: Vec<&'static str>,
}

impl Rights {
    pub(crate) fn listed() -> Self {
        let mut commands: Vec<Vec<&str>> = Vec::new();
        for line in block().lines().filter(|line| !line.starts_with('#')) {
            match line.strip_prefix("ACL SETUSER app ") {
                Some(words) => commands.push(words.split_whitespace().collect()),
                None => commands.last_mut().unwrap().extend(line.split_whitespace()),
            }
        }
        let commands = <[_; 5]>::try_from(commands).unwrap();
        let [services, elections, cluster, heartbeats, sentinels] = commands;
        Self {
            services,
            elections,
            cluster,
            heartbeats,
            sentinels,
        }
    }

    /// Of one that only reads.
    pub(crate) fn of_a_reader() -> Vec<&'static str> {
        let (_, from) = block().split_once("ACL SETUSER app ").unwrap();
        let first = from.lines().next().unwrap();
        first.split_whitespace().chain(["+@read"]).collect()
    }

    /// Of one that does everything, wherever the data is.
    pub(crate) fn of_a_server(&self) -> String {
        let all = [&self.services, &self.elections, &self.cluster];
        let words: Vec<&str> = all.into_iter().flatten().copied().collect();
        words.join(" ")
    }
}

fn block() -> &'static str {
    let readme = include_str!("../../README.md");
    let (_, from) = readme.split_once("**Rights.**").unwrap();
    let (_, from) = from.split_once("```text\n").unwrap();
    let (block, _) = from.split_once("```").unwrap();
    block
}
