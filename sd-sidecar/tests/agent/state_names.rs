//! Which file a state is: one agent has it, whatever it is called.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use sd_core::ErrorKind;
use sd_core::memory::Memory;
use sd_sidecar::daemon::registrations::{How, Registrations, Settings};
use sd_sidecar::daemon::store::Store;
use serde_json::json;

use crate::registrations::{declared, me};

const GRACE: Duration = Duration::from_secs(20);

async fn opened(memory: &Memory, state: &Path) -> Registrations {
    let open = Registrations::open(memory.connect(), Settings::default(), state);
    open.await.unwrap()
}

async fn register(registrations: &Registrations, port: u16) {
    let greeter = json!({"service": "greeter", "address": format!("10.0.0.7:{port}")});
    registrations
        .register(&me(), declared(greeter))
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_state_has_one_agent_by_whichever_name_another_one_is_given_it() {
    let (memory, folder) = (Memory::new(), tempfile::tempdir().unwrap());
    let path = |name: &str| folder.path().join(name);
    let state = path("state.json");
    let before = opened(&memory, &state).await;
    register(&before, 1).await;
    before.close(How::Keep, GRACE).await;
    symlink("state.json", path("linked.json")).unwrap();
    symlink(path("linked.json"), path("twice.json")).unwrap();
    fs::hard_link(&state, path("hard.json")).unwrap();
    symlink(".", path("folder")).unwrap();

    let running = opened(&memory, &state).await;
    // It is replaced now.
    register(&running, 2).await;
    fs::hard_link(&state, path("later.json")).unwrap();
    for name in [
        "linked.json",
        "twice.json",
        "hard.json",
        "folder/state.json",
        "later.json",
    ] {
        let open = Registrations::open(memory.connect(), Settings::default(), path(name));
        let refused = open.await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Conflict, "{name}");
        let why = refused.report().to_string();
        assert!(why.contains("another agent uses"), "{why}");
        // A check takes nothing.
        Store::check(path(name)).await.unwrap();
    }
    running.close(How::Keep, GRACE).await;
    let next = opened(&memory, &path("twice.json")).await;
    assert_eq!(next.entries().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_state_that_is_a_link_stays_one_and_its_target_is_written() {
    let (memory, folder) = (Memory::new(), tempfile::tempdir().unwrap());
    let path = |name: &str| folder.path().join(name);
    fs::create_dir(path("data")).unwrap();
    // There is no file yet.
    symlink("data/state.json", path("state.json")).unwrap();
    for port in 1..3 {
        let agent = opened(&memory, &path("state.json")).await;
        register(&agent, port).await;
        agent.close(How::Keep, GRACE).await;
    }
    let link = fs::symlink_metadata(path("state.json")).unwrap();
    assert!(link.is_symlink());
    let written = fs::read_to_string(path("data/state.json")).unwrap();
    assert!(written.contains("10.0.0.7:2"), "{written}");

    symlink("loop.json", path("loop.json")).unwrap();
    let open = Store::open(path("loop.json")).await;
    let why = open.unwrap_err().report().to_string();
    assert!(why.contains("loop.json cannot be looked for"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn a_state_without_a_byte_is_a_new_one() {
    let (memory, folder) = (Memory::new(), tempfile::tempdir().unwrap());
    let state = folder.path().join("state.json");
    fs::write(&state, "").unwrap();
    assert_eq!(Store::check(&state).await.unwrap(), None);
    let agent = opened(&memory, &state).await;
    assert_eq!(agent.state_damage(), None);
    register(&agent, 1).await;
    agent.close(How::Keep, GRACE).await;
    let files = fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(files, 2, "the state and its lock");
}

#[tokio::test(start_paused = true)]
async fn a_check_looks_at_what_an_agent_could_only_rename_at_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state.json");
    fs::write(folder.path().join("state.json.ending"), "{").unwrap();
    let damage = Store::check(&state).await.unwrap().unwrap();
    assert!(damage.contains("state.json.ending is damaged"), "{damage}");
}
