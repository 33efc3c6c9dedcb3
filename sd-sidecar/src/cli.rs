//! The command line.

pub(crate) mod arguments;
mod help;
mod misuse;

use std::ffi::OsString;
use std::path::PathBuf;

#[cfg(feature = "config-service")]
use clap::parser::ValueSource;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;

use self::arguments::{
    AgentAct, AtAgent, AtConfigService, Awaited, Candidacy, ConfigServiceAct, Target, Wait, Wanted,
};
use self::misuse::Told;

/// Read and change a service registry.
#[derive(Debug, Parser)]
#[command(name = "sdctl", version, after_help = help::after())]
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
    #[command(after_help = help::SERVICES)]
    Services {
        /// Print every change until interrupted
        #[arg(long)]
        watch: bool,
        #[command(flatten)]
        wait: Wait,
    },
    /// Print the instances of a service once
    #[command(after_help = help::LIST)]
    List {
        /// The service's name
        service: String,
        #[command(flatten)]
        wait: Wait,
    },
    /// Print the instances of a service, then every change, until interrupted
    #[command(after_help = help::WATCH)]
    Watch {
        /// The service's name
        service: String,
    },
    /// Wait until a service has instances that are ready
    #[command(after_help = help::WAIT_FOR)]
    WaitFor(Awaited),
    /// Keep an instance registered until Ctrl-C or SIGTERM, then withdraw it
    #[command(after_help = help::REGISTER)]
    Register(Wanted),
    /// Have readers see an instance as not ready, and ask its owner to finish
    #[command(after_help = help::DRAIN)]
    Drain(Target),
    /// Have readers see an instance as ready, whatever its owner says
    #[command(after_help = help::READY)]
    Ready(Target),
    /// Have readers see an instance as not ready, whatever its owner says
    #[command(after_help = help::UNREADY)]
    Unready(Target),
    /// End what drain, ready or unready said: readers see what the owner says
    #[command(after_help = help::CLEAR)]
    Clear(Target),
    /// Remove the record of an instance; its owner, if it lives, registers it again
    #[command(after_help = help::DEREGISTER)]
    Deregister(Target),
    /// Campaign until Ctrl-C or SIGTERM, and run a command while leading
    #[command(after_help = help::ELECT)]
    Elect(Candidacy),
    /// Print the leader of an election
    #[command(after_help = help::LEADER)]
    Leader {
        /// The election's name
        name: String,
        /// Print every change until interrupted
        #[arg(long)]
        watch: bool,
        #[command(flatten)]
        wait: Wait,
    },
    /// Look at the local agent of this host, or stop it
    #[command(after_help = help::AGENT)]
    Agent {
        #[command(flatten)]
        at: AtAgent,
        #[command(subcommand)]
        act: AgentAct,
    },
    #[cfg_attr(
        feature = "config-service",
        doc = "Run a config service of isp modules, look at it, and set configurations"
    )]
    #[cfg_attr(
        not(feature = "config-service"),
        doc = "Look at a config service of isp modules, and set configurations"
    )]
    #[command(after_help = help::CONFIG_SERVICE)]
    ConfigService {
        #[command(flatten)]
        at: AtConfigService,
        #[command(subcommand)]
        act: ConfigServiceAct,
    },
    /// Print what has a shell complete the commands and options of sdctl
    #[command(after_help = help::COMPLETION)]
    Completion {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page of sdctl, or write those of all its commands into a folder
    #[command(after_help = help::MAN)]
    Man {
        /// The folder, which must exist
        folder: Option<PathBuf>,
    },
}

impl Command {
    /// Whether it runs for as long as a service does, whose log is what its operator has of it.
    pub(crate) fn is_service(&self) -> bool {
        match self {
            #[cfg(feature = "config-service")]
            Self::ConfigService {
                act: ConfigServiceAct::Serve(serving),
                ..
            } => !serving.check,
            _ => false,
        }
    }
}

impl Cli {
    /// Reads the command line.
    pub(crate) fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, Told> {
        let arguments: Vec<_> = arguments.into_iter().collect();
        let matches = Self::command().try_get_matches_from(&arguments);
        #[cfg(feature = "config-service")]
        if let Ok(matches) = &matches {
            refuse_for_serve(matches)?;
        }
        let read = matches.and_then(|matches| Self::from_arg_matches(&matches));
        read.map_err(|error| {
            let program = Self::command();
            let mut words = arguments.iter().skip(1);
            let command = words.find_map(|word| program.find_subcommand(word));
            Told::new(error, command.map(clap::Command::get_name))
        })
    }
}

/// The options of other commands that a service to run has no use for. One that takes them without a word seems to do what they say.
#[cfg(feature = "config-service")]
const NOT_FOR_SERVE: [&str; 7] = [
    "registry",
    "service",
    "timeout",
    "ca",
    "cert",
    "key",
    "server_name",
];

#[cfg(feature = "config-service")]
fn refuse_for_serve(matches: &clap::ArgMatches) -> Result<(), Told> {
    let at = matches.subcommand_matches("config-service");
    let Some(serve) = at.and_then(|at| at.subcommand_matches("serve")) else {
        return Ok(());
    };
    let is_given = |id: &&&str| {
        let mut values = serve.get_raw(id).into_iter().flatten();
        serve.value_source(id) == Some(ValueSource::CommandLine) && values.any(|it| !it.is_empty())
    };
    match NOT_FOR_SERVE.iter().find(is_given) {
        None => Ok(()),
        Some(id) => Err(Told::Misused(format!(
            "--{} says how a config service is asked, not how one is run; try: sdctl config-service serve --help",
            id.replace('_', "-")
        ))),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
    fn where_an_agent_is_may_stand_before_and_after_what_to_do_with_it() {
        for line in [
            "sdctl agent --agent https://h:1 --token-file t --ca a --cert c --key k --server-name n --timeout 9s status",
            "sdctl agent status --agent https://h:1 --token-file t --ca a --cert c --key k --server-name n --timeout 9s",
            "sdctl agent --agent https://h:1 --timeout 9s --key k status --cert c --token-file t --ca a --server-name n",
        ] {
            let Command::Agent { at, act } = read(line).unwrap().command else {
                panic!("another command");
            };
            assert!(matches!(act, AgentAct::Status), "{line}");
            assert_eq!(
                (at.agent.as_str(), at.timeout, at.server_name.as_deref()),
                ("https://h:1", Duration::from_secs(9), Some("n")),
                "{line}"
            );
            let files = [at.token_file, at.ca, at.cert, at.key];
            let files = files.map(|file| file.unwrap().display().to_string());
            assert_eq!(files, ["t", "a", "c", "k"], "{line}");
        }
        let line = "sdctl config-service --service http://h:1 --timeout 9s get m --token-file t";
        let Command::ConfigService { at, .. } = read(line).unwrap().command else {
            panic!("another command");
        };
        assert_eq!(
            (at.service.as_str(), at.timeout, at.token_file.is_some()),
            ("http://h:1", Duration::from_secs(9), true)
        );
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
            ("sdctl register s h:1 --weight 70000", "0 to 65535"),
            (
                "sdctl register s h:1 --weight x",
                "0 to 65535; try: sdctl register --help",
            ),
            ("sdctl wait-for s --count 0", "at least 1"),
        ] {
            let text = misuse(line);
            let (_, tip) = text.rsplit_once("; try: sdctl ").unwrap();
            assert!(
                text.contains(hint) && tip.ends_with("--help") && !text.contains('\n'),
                "{line}: {text}"
            );
        }
    }

    #[test]
    fn the_tip_names_the_command_and_no_way_that_leads_nowhere() {
        let text = misuse("sdctl watch s --timeout 5s");
        assert!(text.ends_with("try: sdctl watch --help"), "{text}");
        assert!(!text.contains("as a value"), "{text}");
    }

    #[test]
    fn every_command_has_an_example_that_can_be_read() {
        let mut examples = 0;
        for command in Cli::command().get_subcommands() {
            let name = command.get_name();
            let help = command.get_after_help().map(ToString::to_string);
            let help = help.unwrap_or_default();
            let lines = help
                .lines()
                .filter_map(|line| line.trim().strip_prefix("sdctl "));
            for line in lines {
                assert_eq!(line.split(' ').next(), Some(name), "{line}");
                // What a shell does with the output is not ours.
                let line = line.split([';', '|', '>', '&']).next().unwrap().trim();
                let read = Cli::read(
                    ["sdctl"]
                        .into_iter()
                        .chain(line.split(' '))
                        .map(OsString::from),
                );
                assert!(read.is_ok(), "{line}: {read:?}");
                examples += 1;
            }
        }
        assert!(examples >= Cli::command().get_subcommands().count());
    }
}
