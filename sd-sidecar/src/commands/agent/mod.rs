//! `sdctl agent`: what the local agent holds and why, and its end.

mod asking;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::asking::Agent;
use crate::cli::Cli;
use crate::cli::arguments::{AgentAct, AtAgent};
use crate::failure::Failure;
use crate::output::table::Table;
use crate::output::{Output, Style};

pub(crate) async fn run(cli: &Cli, at: &AtAgent, act: &AgentAct) -> Result<(), Failure> {
    let (output, agent) = (Output::new(cli.json), Agent::new(at)?);
    match act {
        AgentAct::Status => status(output, &agent).await,
        AgentAct::Stop { keep } => stop(output, *keep, &agent).await,
    }
}

/// What is shown in words. What an agent of another version adds is only in the JSON.
#[derive(Deserialize)]
#[serde(default)]
struct About {
    agent_id: String,
    agent_run_id: String,
    version: String,
    pid: u32,
    started_at: String,
    registry: String,
    lifecycle_state: String,
    reasons: Vec<String>,
    notes: Vec<String>,
}

impl Default for About {
    fn default() -> Self {
        let unknown = || "-".to_owned();
        Self {
            agent_id: unknown(),
            agent_run_id: unknown(),
            version: unknown(),
            pid: 0,
            started_at: unknown(),
            registry: unknown(),
            lifecycle_state: unknown(),
            reasons: Vec::new(),
            notes: Vec::new(),
        }
    }
}

/// The same of one registration.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Held {
    service: String,
    id: String,
    stage: String,
    owner: String,
    updated_at: String,
    drain_deadline: Option<String>,
    #[serde(rename = "override")]
    overridden: Option<String>,
    error: Option<String>,
    health: Health,
    instance: Instance,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Health {
    checks: Vec<Check>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Check {
    name: String,
    state: String,
    output: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Instance {
    address: String,
}

#[derive(Serialize)]
struct Status<'a> {
    agent: &'a Value,
    registrations: &'a Value,
}

const COLUMNS: [&str; 7] = ["SERVICE", "ID", "ADDRESS", "STAGE", "OWNER", "SINCE", "WHY"];

async fn status(output: Output, agent: &Agent<'_>) -> Result<(), Failure> {
    let about = agent.get("/v1/agent").await?;
    let list = agent.get("/v1/registrations").await?;
    let registrations = &list["registrations"];
    if output.is_json() {
        return output.json(&Status {
            agent: &about,
            registrations,
        });
    }
    let about: About = agent.read(&about)?;
    let held: Vec<Held> = agent.read(registrations)?;
    output.line(&format!(
        "{} is {}, version {}, pid {}, run {} since {}",
        about.agent_id,
        about.lifecycle_state,
        about.version,
        about.pid,
        about.agent_run_id,
        about.started_at
    ))?;
    output.line(&format!("registry {}", about.registry))?;
    for reason in about.reasons.iter().chain(&about.notes) {
        output.styled(Style::Doubtful, reason)?;
    }
    let header = COLUMNS.map(str::to_owned);
    let rows: Vec<_> = held.iter().map(cells).collect();
    let mut table = Table::default();
    table.make_room(&header);
    for row in &rows {
        table.make_room(row);
    }
    if !rows.is_empty() {
        output.styled(Style::Header, &table.row(&header))?;
    }
    for (row, held) in rows.iter().zip(&held) {
        let style = match held.stage.as_str() {
            "Serving" => Style::Plain,
            "Deregistered" => Style::Dim,
            _ => Style::Doubtful,
        };
        output.styled(style, &table.row(row))?;
    }
    Ok(())
}

fn cells(held: &Held) -> [String; COLUMNS.len()] {
    [
        held.service.clone(),
        held.id.clone(),
        held.instance.address.clone(),
        held.stage.clone(),
        held.owner.clone(),
        seconds(&held.updated_at),
        why(held),
    ]
}

/// A time as people read it: its fraction is only in the JSON.
fn seconds(time: &str) -> String {
    match time.split_once('.') {
        Some((seconds, _)) if time.ends_with('Z') => format!("{seconds}Z"),
        _ => time.to_owned(),
    }
}

/// Why it is in its stage, as far as more than its name is to be said.
fn why(held: &Held) -> String {
    let mut why = Vec::new();
    if let Some(error) = &held.error {
        why.push(error.clone());
    }
    if let Some(overridden) = &held.overridden {
        why.push(format!("an operator says {overridden}"));
    }
    if let Some(deadline) = &held.drain_deadline {
        why.push(format!("leaves at {}", seconds(deadline)));
    }
    for check in held
        .health
        .checks
        .iter()
        .filter(|check| check.state != "passing")
    {
        why.push(format!(
            "{} is {}: {}",
            check.name, check.state, check.output
        ));
    }
    if why.is_empty() && held.stage == "Registered" {
        why.push("it wants no calls".to_owned());
    }
    if why.is_empty() {
        "-".to_owned()
    } else {
        why.join("; ")
    }
}

async fn stop(output: Output, keep: bool, agent: &Agent<'_>) -> Result<(), Failure> {
    let request = if keep {
        json!({"keep": true})
    } else {
        json!({})
    };
    // It has as much time to end as its configuration says: this does not wait for that.
    let answer = agent.post("/v1/agent/stop", &request).await?;
    if output.is_json() {
        return output.json(&answer);
    }
    output.line(if keep {
        "the agent is stopping, and leaves its records for the next one"
    } else {
        "the agent is stopping"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_why_it_is_not_serving() {
        let held: Held = serde_json::from_value(json!({
            "service": "greeter", "id": "g-1", "stage": "Draining", "owner": "uid:0", "updated_at": "2026-03-01T12:00:00.123456789Z",
            "drain_deadline": "2026-03-01T12:00:20.5Z", "override": "draining", "error": "refused",
            "health": {"passing": false, "checks": [
                {"name": "tcp", "state": "failing", "output": "connection refused"},
                {"name": "ttl", "state": "passing", "output": ""}]},
            "instance": {"address": "10.0.0.7:1"}, "added_later": 1
        }))
        .unwrap();
        assert_eq!(
            cells(&held),
            [
                "greeter",
                "g-1",
                "10.0.0.7:1",
                "Draining",
                "uid:0",
                "2026-03-01T12:00:00Z",
                "refused; an operator says draining; leaves at 2026-03-01T12:00:20Z; tcp is failing: connection refused"
            ]
        );
        assert_eq!(why(&Held::default()), "-");
        let unready = Held {
            stage: "Registered".to_owned(),
            ..Held::default()
        };
        assert_eq!(why(&unready), "it wants no calls");
    }
}
