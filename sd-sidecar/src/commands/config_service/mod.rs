//! `sdctl config-service`: what a config service of isp modules knows, and setting a configuration, over its HTTP API for operators; and,
//! with the feature of that name, running one.

mod asking;
#[cfg(feature = "config-service")]
mod serving;

use std::io::Read;
use std::path::Path;

use serde::Deserialize;
use serde_json::json;

use self::asking::Service;
#[cfg(feature = "config-service")]
pub(crate) use self::serving::serve;
use crate::cli::Cli;
use crate::cli::arguments::{AtConfigService, ConfigServiceAct};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::table::Table;
use crate::output::{Output, Style};

/// A service takes no larger configuration.
const MOST_BYTES: u64 = 4 << 20;

pub(crate) async fn run(
    cli: &Cli,
    at: &AtConfigService,
    act: &ConfigServiceAct,
) -> Result<(), Failure> {
    let (output, service) = (Output::new(cli.json), Service::new(at)?);
    match act {
        ConfigServiceAct::Modules => modules(output, &service).await,
        ConfigServiceAct::Get { module } => get(output, module, &service).await,
        ConfigServiceAct::Set {
            module,
            file,
            over,
            force,
        } => {
            let config = read(file)?;
            set(output, (module, *force), config, *over, &service).await
        }
        #[cfg(feature = "config-service")]
        ConfigServiceAct::Serve(serving) => serve(cli, serving).await.map(drop),
    }
}

/// What is shown in words of a module. What a service of another version adds is only in the JSON.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Module {
    name: String,
    connections: usize,
    instances: Vec<Instance>,
    config_version: Option<u32>,
    schema_version: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Instance {
    host: String,
    port: String,
    version: String,
    transport: String,
}

const COLUMNS: [&str; 6] = [
    "MODULE",
    "CONFIG",
    "CONNECTIONS",
    "ADDRESS",
    "VERSION",
    "TRANSPORT",
];

async fn modules(output: Output, service: &Service<'_>) -> Result<(), Failure> {
    let list = service.get("/v1/modules").await?.json()?;
    if output.is_json() {
        return output.json(&list);
    }
    let modules: Vec<Module> = service.read(&list)?;
    let header = COLUMNS.map(str::to_owned);
    let rows: Vec<_> = modules.iter().flat_map(rows).collect();
    let mut table = Table::default();
    table.make_room(&header);
    for row in &rows {
        table.make_room(row);
    }
    if !rows.is_empty() {
        output.styled(Style::Header, &table.row(&header))?;
    }
    for row in &rows {
        output.line(&table.row(row))?;
    }
    Ok(())
}

/// One row for each instance, and one for a module without any.
fn rows(module: &Module) -> Vec<[String; COLUMNS.len()]> {
    let row = |address: String, version: &str, transport: &str| {
        [
            module.name.clone(),
            module
                .config_version
                .map_or("-".to_owned(), |version| version.to_string()),
            module.connections.to_string(),
            address,
            version.to_owned(),
            transport.to_owned(),
        ]
    };
    if module.instances.is_empty() {
        let version = module.schema_version.as_deref().unwrap_or("-");
        return vec![row("-".to_owned(), version, "-")];
    }
    let instances = module.instances.iter();
    let rows = instances.map(
        |Instance {
             host,
             port,
             version,
             transport,
         }| {
            let address = if host.contains(':') {
                format!("[{host}]:{port}")
            } else {
                format!("{host}:{port}")
            };
            row(address, version, transport)
        },
    );
    rows.collect()
}

async fn get(output: Output, module: &str, service: &Service<'_>) -> Result<(), Failure> {
    let answer = service.get(&Service::config_of(module)).await?;
    if output.is_json() {
        let version = answer.version();
        return output.json(&json!({"version": version, "config": answer.json()?}));
    }
    for line in answer.text()?.lines() {
        output.line(line)?;
    }
    Ok(())
}

async fn set(
    output: Output,
    (module, force): (&str, bool),
    config: Vec<u8>,
    over: Option<u32>,
    service: &Service<'_>,
) -> Result<(), Failure> {
    let mut path = Service::config_of(module);
    if force {
        path.push_str("?force=true");
    }
    let answer = service.put(&path, config, over).await?.json()?;
    if output.is_json() {
        return output.json(&answer);
    }
    let version = &answer["version"];
    output.line(&format!(
        "{module} has version {version} of its configuration"
    ))?;
    // A name that was mistyped is a module that has not been there yet.
    if *version == 1 {
        output.line(
            "it is the first one: no module of this name has connected and sent its default",
        )?;
    }
    Ok(())
}

/// A file, or standard input.
fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let mut config = Vec::new();
    let read = if file == Path::new("-") {
        std::io::stdin()
            .take(MOST_BYTES + 1)
            .read_to_end(&mut config)
    } else {
        std::fs::File::open(file)
            .and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut config))
    };
    let failed = |why: String| {
        Failure::new(format!("cannot read {}: {why}", file.display())).with(Exit::Misused)
    };
    read.map_err(|error| failed(error.to_string()))?;
    if u64::try_from(config.len()).is_ok_and(|bytes| bytes > MOST_BYTES) {
        return Err(failed("it has more than 4 MiB".to_owned()));
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_instance_has_a_row_and_a_module_without_any_has_one() {
        let module = |json| serde_json::from_value::<Module>(json).unwrap();
        let two = module(json!({
            "name": "a", "connections": 3, "config_version": 7, "added_later": 1,
            "instances": [
                {"host": "10.0.0.1", "port": "9", "version": "1", "transport": "grpc"},
                {"host": "fe80::1", "port": "9", "version": "2", "transport": "http"},
            ],
        }));
        assert_eq!(
            rows(&two),
            [
                ["a", "7", "3", "10.0.0.1:9", "1", "grpc"].map(str::to_owned),
                ["a", "7", "3", "[fe80::1]:9", "2", "http"].map(str::to_owned)
            ]
        );
        let none = module(json!({"name": "b", "config_version": null}));
        assert_eq!(
            rows(&none),
            [["b", "-", "0", "-", "-", "-"].map(str::to_owned)]
        );
    }
}
