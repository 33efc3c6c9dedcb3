//! The command line.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use sd_core::{Instance, InstanceId};

use crate::failure::Failure;

/// Read and change a service registry.
#[derive(Debug, Parser)]
#[command(name = "sdctl", version, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// The registry
    // A string, because clap would repeat a bad value with its password.
    #[arg(
        help = "The URL of the registry, for example etcd://127.0.0.1:2379/services",
        long,
        value_name = "URL",
        env = "SDCTL_REGISTRY",
        hide_env_values = true,
        global = true,
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) registry: String,

    /// Print JSON: one object, or one object per line for commands that run until interrupted
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// Log to stderr; repeat it to log everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the names of all services
    Services {
        /// Print every change until interrupted
        #[arg(long)]
        watch: bool,
        #[command(flatten)]
        wait: Wait,
    },
    /// Print the instances of a service once
    List {
        /// The service's name
        service: String,
        #[command(flatten)]
        wait: Wait,
    },
    /// Print the instances of a service, then every change, until interrupted
    Watch {
        /// The service's name
        service: String,
    },
    /// Keep an instance registered until Ctrl-C or SIGTERM, then withdraw it
    Register(Wanted),
    /// Have readers see an instance as not ready, and ask its owner to finish
    Drain(Target),
    /// Have readers see an instance as ready, whatever its owner says
    Ready(Target),
    /// Have readers see an instance as not ready, whatever its owner says
    Unready(Target),
    /// End what drain, ready or unready said: readers see what the owner says
    Clear(Target),
    /// Remove the record of an instance; its owner, if it lives, registers it again
    Deregister(Target),
    /// Campaign until Ctrl-C or SIGTERM, and run a command while leading
    Elect(Candidacy),
    /// Print the leader of an election
    Leader {
        /// The election's name
        name: String,
        /// Print every change until interrupted
        #[arg(long)]
        watch: bool,
        #[command(flatten)]
        wait: Wait,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Wait {
    /// How long to wait for the registry's answer
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub(crate) timeout: Duration,
}

/// The record that an operator means.
#[derive(Debug, Args)]
pub(crate) struct Target {
    /// The service's name
    pub(crate) service: String,
    /// The instance's id
    pub(crate) id: String,
    /// The run of the instance, as list --json prints it [default: the one that is listed now]
    #[arg(long, value_name = "HEX")]
    pub(crate) incarnation: Option<String>,
    #[command(flatten)]
    pub(crate) wait: Wait,
}

/// The instance to register.
#[derive(Debug, Args)]
pub(crate) struct Wanted {
    /// The service's name
    service: String,
    /// The address that clients dial
    #[arg(
        value_name = "HOST:PORT",
        help = "The address that clients dial: host:port, [ipv6]:port or unix:/path"
    )]
    address: String,
    /// An id that stays the same across restarts [default: the address and a random part]
    #[arg(long)]
    id: Option<String>,
    /// A metadata entry; can be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    meta: Vec<(String, String)>,
    /// A tag; can be repeated
    #[arg(long)]
    tag: Vec<String>,
    /// The zone that the instance runs in
    #[arg(long)]
    zone: Option<String>,
    /// The version of the software
    #[arg(long)]
    version: Option<String>,
    /// Its share of the calls, relative to other instances
    #[arg(long, default_value_t = sd_core::Instance::DEFAULT_WEIGHT)]
    weight: u16,
    /// Its tier; lower tiers are used first
    #[arg(long, default_value_t = 0)]
    priority: u16,
    /// How long the record outlives its last renewal, for example 10s
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) ttl: Option<Duration>,
}

/// What to campaign for, and how.
#[derive(Debug, Args)]
pub(crate) struct Candidacy {
    /// The election's name, for example reports/nightly
    pub(crate) name: String,
    /// The value that observers see for this candidate [default: host name and process id]
    #[arg(long)]
    pub(crate) value: Option<String>,
    /// How long the term outlives its last confirmation
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub(crate) ttl: Duration,
    /// How long before the hand-over to tell the command to stop [default: a quarter of the ttl, which is the maximum]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) stop_margin: Option<Duration>,
    /// How long to wait before leading after a leader that did not resign
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    pub(crate) takeover_delay: Duration,
    /// Accept a registry that may have two leaders at once
    #[arg(long)]
    pub(crate) best_effort: bool,
    /// Exit when the first term has ended
    #[arg(long)]
    pub(crate) once: bool,
    /// The command to run while leading
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

impl Wanted {
    /// The instance as it will be registered.
    pub(crate) fn instance(&self) -> sd_core::Result<Instance> {
        let mut instance = Instance::new(&self.service, self.address.as_str())?
            .with_weight(self.weight)
            .with_priority(self.priority);
        if let Some(id) = &self.id {
            instance = instance.with_id(InstanceId::new(id)?);
        }
        if let Some(zone) = &self.zone {
            instance = instance.with_zone(zone);
        }
        if let Some(version) = &self.version {
            instance = instance.with_version(version);
        }
        for tag in &self.tag {
            instance = instance.with_tag(tag);
        }
        for (key, value) in &self.meta {
            instance = instance.with_metadata(key, value);
        }
        Ok(instance)
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write a number with a unit, for example 500ms or 10s"))
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write key=value".to_owned()),
    }
}

/// What to tell instead of running a command.
#[derive(Debug)]
pub(crate) enum Told {
    /// The help or the version that was asked for.
    Help(clap::Error),
    /// The command line is not valid.
    Misused(String),
}

/// The exit status for an invalid command line.
const MISUSED: u8 = 2;

impl Cli {
    /// Reads the command line.
    pub(crate) fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, Told> {
        Self::try_parse_from(arguments).map_err(|error| {
            if error.use_stderr() {
                Told::Misused(one_line(&error.to_string()))
            } else {
                Told::Help(error)
            }
        })
    }
}

impl Told {
    pub(crate) fn tell(self) -> ExitCode {
        match self {
            Self::Help(help) => {
                // The reader may have gone.
                let _ = help.print();
                ExitCode::SUCCESS
            }
            Self::Misused(line) => Failure::new(line).exit_with(MISUSED),
        }
    }
}

/// clap explains itself on several lines, of which those before the usage say what is wrong.
fn one_line(explanation: &str) -> String {
    let lines = explanation
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .filter(|line| !line.is_empty());
    let text = lines.collect::<Vec<_>>().join(" ");
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    // Without a command clap answers with the whole help.
    if explanation.contains("Commands:") {
        return "no command given; try: sdctl --help".to_owned();
    }
    format!("{text}; try: sdctl --help")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Cli, Told> {
        Cli::read(line.split(' ').map(OsString::from))
    }

    fn misuse(line: &str) -> String {
        match read(line) {
            Err(Told::Misused(text)) => text,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn an_instance_has_all_that_the_options_say() {
        let line = "sdctl register greeter 10.0.0.7:50051 --id g-1 --meta a=b=c --meta d= --tag x \
                    --tag y --zone z --version 1.2 --weight 3 --priority 4 --ttl 30s";
        let Command::Register(wanted) = read(line).unwrap().command else {
            panic!("another command");
        };
        let instance = wanted.instance().unwrap();
        assert_eq!(wanted.ttl, Some(Duration::from_secs(30)));
        assert_eq!(instance.id().as_str(), "g-1");
        assert_eq!(instance.endpoint().to_string(), "10.0.0.7:50051");
        assert_eq!(
            (instance.zone(), instance.version()),
            (Some("z"), Some("1.2"))
        );
        assert_eq!((instance.weight(), instance.priority()), (3, 4));
        assert!(instance.tags().iter().eq(["x", "y"]));
        assert_eq!(instance.metadata()["a"], "b=c");
        assert_eq!(instance.metadata()["d"], "");
    }

    #[test]
    fn options_may_stand_before_and_after_the_command() {
        for line in [
            "sdctl --json --registry memory:// list s",
            "sdctl list s --registry memory:// --json",
        ] {
            let cli = read(line).unwrap();
            assert!(cli.json && cli.registry == "memory://", "{line}");
        }
    }

    #[test]
    fn misuse_is_explained_on_one_line() {
        for (line, hint) in [
            ("sdctl", "no command"),
            ("sdctl lits s", "list"),
            ("sdctl list", "<SERVICE>"),
            ("sdctl list s --jsn", "--json"),
            ("sdctl list s --timeout 5", "500ms or 10s"),
            ("sdctl register s h:1 --meta nonsense", "key=value"),
            ("sdctl register s h:1 --weight 70000", "70000"),
        ] {
            let text = misuse(line);
            assert!(
                text.contains(hint) && text.ends_with("sdctl --help") && !text.contains('\n'),
                "{line}: {text}"
            );
        }
    }
}
