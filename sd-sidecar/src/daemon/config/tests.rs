use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;

use clap::Command;

use super::*;

fn sources(line: &[&str], environment: &[(&str, &str)]) -> Sources {
    let matches = Sources::arguments(Command::new("sd-agent"))
        .try_get_matches_from(["sd-agent"].iter().chain(line))
        .unwrap();
    let environment: BTreeMap<_, _> = environment.iter().copied().collect();
    Sources::new(&matches, |name| environment.get(name).map(OsString::from)).unwrap()
}

fn config(line: &[&str]) -> Result<Config, ConfigError> {
    Config::new(&sources(line, &[]).read().unwrap())
}

fn file(extension: &str, text: &str) -> tempfile::TempPath {
    let file = tempfile::Builder::new()
        .suffix(extension)
        .tempfile()
        .unwrap();
    fs::write(file.path(), text).unwrap();
    file.into_temp_path()
}

fn refused(extension: &str, text: &str) -> String {
    let path = file(extension, text);
    let line = ["--config", path.to_str().unwrap()];
    let read = sources(&line, &[]).read();
    read.and_then(|values| Config::new(&values).map(drop))
        .unwrap_err()
        .to_string()
}

/// A value for each key that is not its default.
fn another(key: &Key) -> &'static str {
    match key.value {
        "true|false" if key.default == "true" => "false",
        "true|false" => "true",
        "URL" => "memory://other",
        "ADDRESS" => "unix:/run/other.sock",
        "OCTAL" => "0600",
        "ORIGIN" => "https://a.example",
        "DURATION" => "7s",
        "BYTES" | "N" => "77",
        "FILTER" => "debug",
        "text|json" => "json",
        _ => "other",
    }
}

fn nested(key: &Key, yaml: bool) -> String {
    let value = match (yaml, another(key)) {
        (_, bare @ ("true" | "false" | "77")) => bare.to_owned(),
        (_, text) => format!("{text:?}"),
    };
    let value = if key.list {
        format!("[{value}]")
    } else {
        value
    };
    match (key.name.split_once('.'), yaml) {
        (Some((table, name)), true) => format!("{table}:\n  {name}: {value}\n"),
        (Some((table, name)), false) => format!("[{table}]\n{name} = {value}\n"),
        (None, true) => format!("{}: {value}\n", key.name),
        (None, false) => format!("{} = {value}\n", key.name),
    }
}

#[test]
fn every_key_is_read_from_both_kinds_of_file_the_environment_and_a_flag_each_before_the_last() {
    for key in KEYS {
        let wanted = another(key);
        let default = sources(&[], &[]).read().unwrap();
        assert_ne!(default.text(key.name), Some(wanted), "{}", key.name);
        for (extension, yaml) in [(".toml", false), (".yaml", true), (".yml", true)] {
            let path = file(extension, &nested(key, yaml));
            let path = path.to_str().unwrap();
            let read = sources(&["--config", path], &[]).read().unwrap();
            assert_eq!(read.list(key.name), [wanted], "{}", key.name);
            assert_eq!(read.source(key.name), Some(Source::File));
            assert_eq!(default.changed(&read).len(), 1, "{}", key.name);

            let variable = key.variable();
            let environment = [
                (variable.as_str(), "environment"),
                ("SD_AGENT_CONFIG", path),
            ];
            let read = sources(&[], &environment).read().unwrap();
            assert_eq!(read.list(key.name), ["environment"]);

            let flag = format!("--{}=flag", key.flag());
            let read = sources(&[&flag], &environment).read().unwrap();
            assert_eq!(read.list(key.name), ["flag"]);
            assert_eq!(read.source(key.name), Some(Source::Flag));
        }
    }
}

/// A key that is defined and read by nothing would be accepted without effect.
#[test]
fn every_key_is_read_by_the_configuration() {
    let code = include_str!("mod.rs");
    for key in KEYS {
        let quoted = format!("\"{}\"", key.name);
        assert!(code.contains(&quoted), "{}", key.name);
    }
}

#[test]
fn the_defaults_are_valid() {
    let config = config(&[]).unwrap();
    assert_eq!(config.listen, ["127.0.0.1:15010".parse().unwrap()]);
    assert_eq!(config.limits.body, LONGEST_BODY);
    assert_eq!(config.registry.expose(), "memory://");
    assert!(config.log.access && !config.stop.keep && !config.check_commands);
}

#[test]
fn a_list_is_repeated_as_a_flag_or_has_commas_as_in_the_environment() {
    let many = ["127.0.0.1:1", "unix:/a.sock"];
    let flags = config(&["--listen", many[0], "--listen", many[1]]).unwrap();
    let commas = config(&["--listen", &many.join(",")]).unwrap();
    assert_eq!(commas.listen, flags.listen);
    let values = sources(&[], &[("SD_AGENT_LISTEN", "127.0.0.1:1, unix:/a.sock")]);
    let environment = Config::new(&values.read().unwrap()).unwrap();
    assert_eq!(flags.listen, many.map(|one| one.parse().unwrap()));
    assert_eq!(flags.listen, environment.listen);
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_name() {
    for (text, tip) in [
        (
            "registri = \"memory://\"",
            ".toml: line 1: there is no key registri: did you mean registry?",
        ),
        (
            "[limits]\nconection = 1",
            ".toml: line 2: there is no key limits.conection: did you mean limits.connections?",
        ),
        ("connections = 1", "did you mean limits.connections?"),
        ("[limit]\nbody = 1", "there is no key limit"),
        ("xyzzy = 1", "--help"),
        ("\"\\u001b[2J\" = 1", "\\u{1b}[2J"),
    ] {
        let why = refused(".toml", text);
        assert!(why.contains(tip) && !why.contains('\n'), "{why}");
    }
}

#[test]
fn a_bad_file_is_refused_with_the_place_and_without_what_it_holds() {
    for (extension, text, part) in [
        (".toml", "a = 1\nregistry = \"sesame", "line 2"),
        (
            ".toml",
            "registry = \"a\"\nregistry = \"sesame\"",
            "line 2: duplicate key",
        ),
        (".yaml", "env: a\nregistry: [sesame", "line"),
        (
            ".yaml",
            "env: a\nzone: b\nenv: sesame",
            "duplicate entry with key \"env\"",
        ),
        (".yaml", "- sesame", "invalid type"),
        (
            ".toml",
            "zone = \"a\"\nregistry = [\"sesame\"]",
            ".toml: line 2: registry: is no list",
        ),
        (
            ".toml",
            "[limits]\nbody = 1.5",
            ".toml: line 2: limits.body: expected BYTES",
        ),
        (
            ".toml",
            "[limits]\nbody = 2000000",
            ".toml: line 2: limits.body: expected a number from 1 to 1048576",
        ),
        (
            ".yaml",
            "zone: a\nlimits:\n  streams: 1\n  body: 2000000",
            ".yaml: line 4: limits.body: expected a number from 1 to 1048576",
        ),
        (
            ".yaml",
            "zone: a\nlimit:\n  body: 1",
            ".yaml: line 2: there is no key limit",
        ),
        (
            ".yaml",
            "listen:\n- 127.0.0.1:1\n- 0.0.0.0:1\nzone: a",
            ".yaml: line 1: listen: 0.0.0.0:1 can be reached",
        ),
        (
            ".toml",
            "\n[tls]\nkey = \"/k\"",
            ".toml: line 3: tls.key: tls.cert and tls.key are set together",
        ),
        (
            ".toml",
            "keep_on_stop = true",
            ".toml: line 1: keep_on_stop: the next agent",
        ),
        (".json", "{}", "neither .toml nor .yaml"),
        (
            ".toml",
            "registry = \"etcd://root:sesame@h:x/\"",
            ".toml: line 1: registry: registry url",
        ),
    ] {
        let why = refused(extension, text);
        assert!(why.contains(part), "{text}: {why}");
        assert!(!why.contains("sesame") && !why.contains('\n'), "{why}");
    }
}

#[test]
fn what_other_hosts_reach_needs_tokens_and_tls() {
    for (line, part) in [
        (&["--listen=0.0.0.0:1"][..], "set tokens"),
        (
            &["--listen=0.0.0.0:1", "--tokens=/t"],
            "tls:0.0.0.0:1, or set insecure",
        ),
        (
            &["--listen=tls:[::]:1", "--tokens=/t"],
            "set tls.cert and tls.key",
        ),
        (&["--listen=tls:[::]:1", "--tls-cert=/c"], "set together"),
        (
            &["--listen=tls:[::]:1", "--tls-cert=/c", "--tls-key=/k"],
            "set tokens",
        ),
        (&["--listen=example.org:1"], "IP address"),
        (&["--listen=unix:relative"], "absolute path"),
        (&["--listen=127.0.0.1:1", "--listen=localhost:1"], "twice"),
        (&["--ttl=5"], "--ttl: expected a duration"),
        (&["--ttl=100ms"], "1s to 24h"),
        (&["--keep-on-stop"], "set state"),
        (&["--advertise=0.0.0.0"], "--advertise"),
        (&["--advertise=10.0.0.1:80"], "without scheme and port"),
        (&["--advertise=http://h"], "without scheme and port"),
        (&["--hosts=a:80"], "--hosts: \"a:80\" is more than a host"),
        (&["--hosts=a,b c"], "--hosts"),
        (&["--log-level=loud"], "--log-level: \"loud\" is no level"),
        (&["--origins=https://a/b"], "without a path"),
        (&["--socket-mode=888"], "octal"),
        (&["--log-level=a=b=c"], "--log-level"),
        (&["--env="], "must not be empty"),
        (&["--route-prefix=routes"], "from Consul"),
        (&["--route-prefix="], "--route-prefix: expected a folder"),
        (&["--route-prefix=/"], "--route-prefix: expected a folder"),
        (&["--route-prefix=.."], "--route-prefix: expected a folder"),
        (
            &["--route-prefix=a/../b"],
            "--route-prefix: expected a folder",
        ),
        (
            &["--route-prefix=a//b"],
            "--route-prefix: expected a folder",
        ),
        (&["--route-prefix=./a"], "--route-prefix: expected a folder"),
        (&["--zone=a:b"], "--zone: must not have a colon"),
        (&["--cluster-name=a:b"], "--cluster-name: must not have a"),
        (
            &["--advertise=fe80::1"],
            "--advertise: fe80::1 is link-local",
        ),
        (&["--advertise=127.1"], "\"127.1\" is no IPv4 address"),
    ] {
        let why = config(line).unwrap_err().to_string();
        assert!(why.contains(part), "{line:?}: {why}");
    }
    for line in [
        &["--listen=0.0.0.0:1", "--tokens=/t", "--insecure"][..],
        &[
            "--listen=tls:[::]:1",
            "--tokens=/t",
            "--tls-cert=/c",
            "--tls-key=/k",
        ],
        &["--listen=[::1]:1"],
        &["--hosts=a.example,::1,10.0.0.7", "--advertise=fd00::1"],
        &["--keep-on-stop", "--state=/s"],
        &["--route-prefix=routes", "--registry=consul://h:1"],
        &["--route-prefix=/gateway/routes/", "--registry=consul://h:1"],
    ] {
        assert!(config(line).is_ok(), "{line:?}");
    }
}

#[test]
fn what_is_shown_has_no_password() {
    let values = sources(
        &["--registry", "etcd://root:sesame@10.0.0.1:2379/services"],
        &[],
    );
    let values = values.read().unwrap();
    let shown = Shown {
        values: &values,
        advertised: Some(("10.0.0.7", "default route")),
    };
    let shown = shown.to_string();
    assert!(
        shown.contains("advertise = 10.0.0.7 (default route)"),
        "{shown}"
    );
    assert!(
        shown.contains("registry = etcd://root:***@10.0.0.1:2379/services (command line)"),
        "{shown}"
    );
    let debug = format!("{values:?} {:?}", Config::new(&values).unwrap());
    assert!(!shown.contains("sesame") && !debug.contains("sesame"));
}
