//! `sd-agent`: the local agent. The crate's documentation says how to use it.

mod run;
mod signals;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Arg, ArgAction, Command};
use sd_core::Printable;
use sd_sidecar::daemon::agent::StartError;
use sd_sidecar::daemon::config::{Config, ConfigError, Shown, Sources, Values};

/// What cannot work as it is written.
const MISUSED: u8 = 2;

fn main() -> ExitCode {
    let check = Arg::new("check")
        .long("check")
        .action(ArgAction::SetTrue)
        .help("Check the configuration and what it names, print it, and end with 0, or with 2 if it cannot be used");
    let command = Command::new("sd-agent")
        .version(env!("CARGO_PKG_VERSION"))
        .about("The local agent: keeps the registrations of processes on this host true, and tells them what is registered")
        .after_help("A flag counts before the environment, that before the file, and that before the default.\nSIGHUP reads the file again.")
        .arg(check);
    let matches = match Sources::arguments(command).try_get_matches() {
        Ok(matches) => matches,
        Err(error) if !error.use_stderr() => {
            let printed = error.print();
            return if printed.is_ok() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            };
        }
        Err(error) => return failed(&misuse(&error), MISUSED),
    };
    let read = Sources::new(&matches, |name| std::env::var_os(name)).and_then(|sources| {
        let values = sources.read()?;
        let config = Config::new(&values)?;
        Ok((sources, values, config))
    });
    let (sources, values, config) = match read {
        Ok(read) => read,
        Err(error) => return failed(&error.to_string(), MISUSED),
    };
    if matches.get_flag("check") {
        return check_and_show(&values, &config);
    }
    match run::run(sources, values, &config) {
        Ok(status) => status,
        Err(error @ (StartError::Config(_) | StartError::Registry(_))) => {
            failed(&error.to_string(), status_of(&error))
        }
        Err(error) => failed(&error.to_string(), 1),
    }
}

fn status_of(error: &StartError) -> u8 {
    match error {
        StartError::Registry(error) if error.kind() != sd_core::ErrorKind::InvalidInput => 1,
        _ => MISUSED,
    }
}

fn check_and_show(values: &Values, config: &Config) -> ExitCode {
    let checked = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| StartError::from(ConfigError::from(error)))
        .and_then(|runtime| runtime.block_on(sd_sidecar::daemon::agent::check(config)))
    {
        Ok(checked) => checked,
        Err(error) => return failed(&error.to_string(), MISUSED),
    };
    // A start goes on in spite of them.
    for note in &checked.notes {
        tell(note);
    }
    let advertised = checked.advertised.as_ref();
    let shown = Shown {
        values,
        advertised: advertised.map(|(host, from)| (host.as_str(), *from)),
    };
    let mut out = io::stdout().lock();
    match write!(out, "{shown}").and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// clap explains itself on several lines, of which those before the usage say what is wrong.
fn misuse(error: &clap::Error) -> String {
    let text = error.to_string();
    let lines = text.lines().map(str::trim);
    let lines = lines.take_while(|line| {
        !line.starts_with("Usage:") && !line.starts_with("For more information")
    });
    let text = lines
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
        .replace(" tip: ", "; tip: ");
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    format!("{text}; try: sd-agent --help")
}

fn failed(line: &str, status: u8) -> ExitCode {
    tell(line);
    ExitCode::from(status)
}

/// Tells a line on stderr.
fn tell(line: &str) {
    // A stderr that cannot be written to changes nothing else.
    let _ = writeln!(io::stderr(), "sd-agent: {}", Printable(line));
}
