//! What an agent keeps on disk, and what the next one makes of it.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, SystemTime};

use sd_core::memory::Memory;
use sd_core::{Error, ErrorKind, Instance, Subscription};
use sd_sidecar::checks::Commands;
use sd_sidecar::daemon::registrations::{
    Caller, How, LAST_WRITE, Refused, Registrations, Selector, Settings, Stage,
};
use sd_sidecar::daemon::store::Store;
use sd_testing::{Answer, LONG, Op, eventually, is_live_with, until};
use serde_json::json;
use tempfile::TempDir;
use tokio::runtime::Builder;
use tokio::time::{Instant, sleep, timeout};

use crate::registrations::{declared, me, of_run, scripted, until_entry};

const GRACE: Duration = Duration::from_secs(20);
const RETRY: Duration = Duration::from_millis(10);

fn greeter() -> sd_sidecar::wire::Declaration {
    declared(json!({
        "service": "greeter", "address": "10.0.0.7:50051", "weight": 3, "ttl": "2s",
        "checks": [{"name": "beat", "kind": "ttl", "ttl": "1h"}],
    }))
}

fn greeters() -> Selector {
    Selector::Port {
        service: "greeter".to_owned(),
        port: 50051,
    }
}

/// One that nothing but a withdrawal takes away while a test runs.
fn long_lived() -> sd_sidecar::wire::Declaration {
    declared(json!({"service": "greeter", "address": "10.0.0.7:50051", "ttl": "10m"}))
}

/// Opens a state once the last write of an agent that was killed is over.
pub(crate) async fn once_free<F>(open: impl Fn() -> F) -> Registrations
where
    F: Future<Output = sd_core::Result<Registrations>>,
{
    let opening = async {
        loop {
            match open().await {
                Err(error) if error.kind() == ErrorKind::Conflict => sleep(RETRY).await,
                opened => return opened.unwrap(),
            }
        }
    };
    timeout(LONG, opening).await.unwrap()
}

async fn opened(memory: &Memory, state: &Path) -> Registrations {
    Registrations::open(memory.connect(), Settings::default(), state)
        .await
        .unwrap()
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Runs an agent as in a process that is killed after `work`: nothing is withdrawn, nothing is written any more.
pub(crate) async fn killed_after<F>(work: impl FnOnce() -> F + Send + 'static)
where
    F: Future<Output = ()>,
{
    let process = tokio::task::spawn_blocking(move || {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(work());
        runtime.shutdown_background();
    });
    process.await.unwrap();
}

/// Follows a service, and tells which sets readers were told in the end.
struct Reader(
    tokio::task::JoinHandle<Vec<Vec<Instance>>>,
    tokio::sync::oneshot::Sender<()>,
);

impl Reader {
    async fn of(mut readers: Subscription) -> Self {
        until(&mut readers, "there", is_live_with(1)).await;
        let (end, mut ended) = tokio::sync::oneshot::channel();
        let following = tokio::spawn(async move {
            let mut sets = Vec::new();
            loop {
                let state = readers.state_and_mark_seen();
                let set = state.snapshot().instances().iter();
                sets.push(set.map(|one| one.as_ref().clone()).collect());
                tokio::select! {
                    changed = readers.changed() => drop(changed.unwrap()),
                    _ = &mut ended => return sets,
                }
            }
        });
        Self(following, end)
    }

    async fn told(self) -> Vec<Vec<Instance>> {
        self.1.send(()).unwrap();
        self.0.await.unwrap()
    }
}

#[tokio::test]
async fn an_agent_that_was_killed_is_continued_and_readers_see_nothing_of_it() {
    let (memory, folder) = (Memory::new(), folder());
    let state = folder.path().to_owned();
    let (its_memory, its_state) = (memory.clone(), state.clone());
    killed_after(async move || {
        let registrations = opened(&its_memory, &its_state).await;
        let entry = registrations.register(&me(), greeter()).await.unwrap();
        assert_eq!(entry.stage, Stage::Registered);
        registrations
            .beat(
                &me(),
                &greeters(),
                "beat",
                sd_sidecar::wire::CheckState::Passing,
                "",
            )
            .unwrap();
        until_entry(&registrations, "serving", |entry| {
            entry.stage == Stage::Serving
        })
        .await;
        // That it passes is on disk as well when another change is.
        let other = declared(json!({"service": "other", "address": "10.0.0.7:1"}));
        registrations.register(&me(), other).await.unwrap();
    })
    .await;
    let readers = memory.connect();
    let reader = Reader::of(readers.subscribe("greeter").unwrap()).await;
    let registrations = opened(&memory, &state).await;
    let entry = until_entry(&registrations, "there", |entry| {
        entry.record.service.as_str() == "greeter" && entry.stage == Stage::Serving
    })
    .await;
    assert_eq!((&entry.owner, &entry.declaration), (&me(), &greeter()));
    // It is renewed by now, or gone.
    sleep(Duration::from_millis(2500)).await;
    let told = reader.told().await;
    for set in &told {
        assert_eq!(set, &told[0]);
    }
    assert_eq!(told[0], [entry.instance.as_ref().clone()]);
    assert!(told[0][0].is_ready());
    // A client that replays has what it had.
    let again = registrations.register(&me(), greeter()).await.unwrap();
    assert_eq!(again.record, entry.record);
    let someone = Caller("another".into());
    let other = registrations.deregister(&someone, &greeters()).await;
    assert!(matches!(other, Err(Refused::NotYours(_))));
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_hands_over_is_continued_and_readers_see_nothing_of_it() {
    let (memory, folder) = (Memory::new(), folder());
    let state = folder.path().join("state.json");
    let before = opened(&memory, &state).await;
    let mut wanted = greeter();
    wanted.checks.clear();
    let first = before.register(&me(), wanted).await.unwrap();
    let reader = Reader::of(memory.connect().subscribe("greeter").unwrap()).await;
    let left = before.close(How::Keep, GRACE).await;
    assert!(left.is_empty(), "{left:?}");
    let next = opened(&memory, &state).await;
    let entry = until_entry(&next, "serving", |entry| entry.stage == Stage::Serving).await;
    assert_eq!(entry.record, first.record);
    sleep(Duration::from_secs(60)).await;
    let told = reader.told().await;
    assert!(told.iter().all(|set| set == &told[0]), "{told:?}");
    // One that ends for good leaves nothing to the next one.
    next.close(How::Deregister, GRACE).await;
    let last = opened(&memory, &state).await;
    assert_eq!(last.entries(), []);
}

#[tokio::test(start_paused = true)]
async fn a_drain_goes_on_with_its_deadline() {
    let (memory, folder) = (Memory::new(), folder());
    let before = opened(&memory, folder.path()).await;
    before.register(&me(), greeter()).await.unwrap();
    let drained = before.drain(&me(), &greeters(), GRACE).await.unwrap();
    let deadline = drained[0].drain_deadline.unwrap();
    before.close(How::Keep, GRACE).await;
    let next = opened(&memory, folder.path()).await;
    let entry = &next.entries()[0];
    assert_eq!(
        (entry.stage, &entry.record),
        (Stage::Draining, &drained[0].record)
    );
    let apart = entry.drain_deadline.unwrap().duration_since(deadline);
    assert!(apart.unwrap_or_default() <= Duration::from_millis(1));
    sleep(GRACE.saturating_sub(Duration::from_secs(1))).await;
    // The clock of the machine does not go on while this test's does: the whole drain is left at most.
    assert_eq!(next.entries()[0].stage, Stage::Draining);
    until_entry(&next, "gone", |entry| entry.stage == Stage::Deregistered).await;
}

#[tokio::test(start_paused = true)]
async fn an_address_that_has_changed_meanwhile_is_registered_before_the_old_one_goes() {
    let (memory, folder) = (Memory::new(), folder());
    let settings = |host: &str| {
        let mut settings = Settings::default();
        settings.advertised_host = Some(host.to_owned());
        settings
    };
    let open = async |host| {
        Registrations::open(memory.connect(), settings(host), folder.path())
            .await
            .unwrap()
    };
    let before = open("10.0.0.7").await;
    let by_port = declared(json!({"service": "greeter", "port": 50051}));
    let first = before.register(&me(), by_port).await.unwrap();
    before.close(How::Keep, GRACE).await;
    let mut readers = memory.connect().subscribe("greeter").unwrap();
    until(&mut readers, "left", is_live_with(1)).await;
    let next = open("10.0.0.8").await;
    let entry = until_entry(&next, "serving", |entry| entry.stage == Stage::Serving).await;
    assert_ne!(entry.record, first.record);
    let state = until(&mut readers, "moved", |state| {
        assert!(!state.snapshot().is_empty());
        let mut all = state.snapshot().instances().iter();
        all.all(|one| one.endpoint().to_string() == "10.0.0.8:50051")
    })
    .await;
    assert_eq!(state.snapshot().len(), 1);
    assert_eq!(next.entries().len(), 1);
    // And the one after it knows.
    next.close(How::Keep, GRACE).await;
    let last = open("10.0.0.8").await;
    assert_eq!(last.entries()[0].record, entry.record);
    // A drain goes on at another address.
    last.drain(&me(), &greeters(), GRACE).await.unwrap();
    last.close(How::Keep, GRACE).await;
    let moved = open("10.0.0.9").await;
    let entry = &moved.entries()[0];
    assert_eq!(entry.stage, Stage::Draining);
    assert_eq!(entry.instance.endpoint().to_string(), "10.0.0.9:50051");
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_at_a_start_is_left_for_the_next_one() {
    let (memory, folder) = (Memory::new(), folder());
    let open = async |settings| {
        Registrations::open(memory.connect(), settings, folder.path())
            .await
            .unwrap()
    };
    let mut full = Settings::default();
    full.advertised_host = Some("10.0.0.7".to_owned());
    full.commands = Commands::Allowed;
    let services = |registrations: &Registrations| {
        let entries = registrations.entries();
        let names = entries.iter().map(|entry| entry.record.service.to_string());
        names.collect::<Vec<_>>()
    };
    let before = open(full.clone()).await;
    let by_port = declared(json!({"service": "greeter", "port": 50051}));
    let first = before.register(&me(), by_port).await.unwrap();
    let checked = declared(json!({
        "service": "checked", "address": "10.0.0.7:1", "checks": [{"kind": "command", "command": ["true"]}],
    }));
    before.register(&me(), checked).await.unwrap();
    before.close(How::Keep, GRACE).await;

    let poor = open(Settings::default()).await;
    assert_eq!(services(&poor), ["checked", "greeter"]);
    let [refused, kept] = &poor.entries()[..] else {
        panic!("{:?}", poor.entries());
    };
    assert_eq!((refused.stage, &refused.owner), (Stage::Init, &me()));
    let why = refused.error.as_deref().unwrap_or_default();
    assert!(why.contains("refused at the start"), "{why}");
    // Without an address of its host, it is where it was.
    assert_eq!(kept.record, first.record);
    let stages = poor.stages();
    assert_eq!(stages.values().sum::<usize>(), 2, "{stages:?}");
    let other = declared(json!({"service": "other", "address": "10.0.0.7:2"}));
    poor.register(&me(), other).await.unwrap();
    poor.close(How::Keep, GRACE).await;
    let again = open(full.clone()).await;
    assert_eq!(services(&again), ["checked", "greeter", "other"]);
    again.close(How::Keep, GRACE).await;

    // Its owner can take it back, and no other caller can.
    let poor = open(Settings::default()).await;
    let which = Selector::Port {
        service: "checked".to_owned(),
        port: 1,
    };
    let other = poor.deregister(&Caller("another".into()), &which).await;
    assert!(matches!(other, Err(Refused::NotFound(_))));
    let gone = poor.deregister(&me(), &which).await.unwrap();
    assert_eq!(gone[0].stage, Stage::Deregistered);
    poor.close(How::Keep, GRACE).await;
    let last = open(full).await;
    assert_eq!(services(&last), ["greeter", "other"]);
}

/// A state as an older agent wrote it: without sums, and at an address that it took.
fn at_an_address_of_old(state: &Path) -> String {
    let mut text = fs::read_to_string(state).unwrap();
    while let Some(at) = text.find(",\"sum\":\"") {
        text.replace_range(at..at + ",\"sum\":\"0123456789abcdef\"".len(), "");
    }
    let address = "\"10.0.0.7:50051\"";
    assert!(text.contains(address), "{text}");
    text.replace(address, "\"127.1:50051\"")
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_loses_no_registration_of_which_it_refuses_the_address() {
    let (memory, folder) = (Memory::new(), folder());
    let state = folder.path().join("state.json");
    let before = opened(&memory, &state).await;
    let first = before.register(&me(), long_lived()).await.unwrap();
    let other = declared(json!({"service": "other", "address": "10.0.0.7:1"}));
    before.register(&me(), other).await.unwrap();
    before.close(How::Keep, GRACE).await;
    let old = at_an_address_of_old(&state);
    fs::write(&state, &old).unwrap();
    assert_eq!(Store::check(&state).await.unwrap(), None);

    // Each start finds it so.
    for _ in 0..2 {
        let next = opened(&memory, &state).await;
        assert_eq!(next.state_damage(), None);
        let [refused, kept] = &next.entries()[..] else {
            panic!("{:?}", next.entries());
        };
        assert_eq!(kept.record.service.as_str(), "other");
        assert_eq!(
            (&refused.record, refused.stage),
            (&first.record, Stage::Init)
        );
        let why = refused.error.as_deref().unwrap_or_default();
        assert!(why.contains("refused at the start"), "{why}");
        assert!(why.contains("\"127.1\" is no IPv4 address"), "{why}");
        next.close(How::Keep, GRACE).await;
        let text = fs::read_to_string(&state).unwrap();
        assert_eq!(text.matches("\"127.1:50051\"").count(), 2, "{text}");
    }
    let files = fs::read_dir(folder.path()).unwrap();
    let names: Vec<_> = files.map(|file| file.unwrap().file_name()).collect();
    let is_aside = |name: &std::ffi::OsString| name.to_string_lossy().contains("damaged");
    assert!(!names.iter().any(is_aside), "{names:?}");

    // It is withdrawn as any other one.
    let mut readers = memory.connect().subscribe("greeter").unwrap();
    until(&mut readers, "left", is_live_with(1)).await;
    let next = opened(&memory, &state).await;
    let gone = next.deregister(&me(), &greeters()).await.unwrap();
    assert_eq!(gone[0].stage, Stage::Deregistered);
    until(&mut readers, "withdrawn", is_live_with(0)).await;
    next.close(How::Keep, GRACE).await;
    assert!(!fs::read_to_string(&state).unwrap().contains("127.1"));

    // Or by the next agent, if it was to end.
    let ending = old.replacen("\"version\":1", "\"version\":1,\"ending\":true", 1);
    fs::write(&state, ending).unwrap();
    let (backend, registry) = scripted();
    let open = Registrations::open(registry, Settings::default(), &state);
    let next = open.await.unwrap();
    assert_eq!(next.entries(), []);
    let withdrawn = backend.registrar.called(Op::Withdraw, 2);
    timeout(LONG, withdrawn).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_address_of_the_host_that_is_refused_by_now_is_replaced_by_the_one_that_it_has() {
    let (memory, folder) = (Memory::new(), folder());
    let state = folder.path().join("state.json");
    let open = async |host: Option<&str>| {
        let mut settings = Settings::default();
        settings.advertised_host = host.map(str::to_owned);
        let opening = Registrations::open(memory.connect(), settings, &state);
        opening.await.unwrap()
    };
    let before = open(Some("10.0.0.7")).await;
    let by_port = declared(json!({"service": "greeter", "port": 50051, "ttl": "10m"}));
    let first = before.register(&me(), by_port).await.unwrap();
    before.close(How::Keep, GRACE).await;
    fs::write(&state, at_an_address_of_old(&state)).unwrap();
    // As long as that is not known, it is left.
    let unknown = open(None).await;
    assert_eq!(unknown.entries()[0].stage, Stage::Init);
    unknown.close(How::Keep, GRACE).await;

    let mut readers = memory.connect().subscribe("greeter").unwrap();
    until(&mut readers, "left", is_live_with(1)).await;
    let next = open(Some("127.0.0.1")).await;
    let entry = until_entry(&next, "serving", |entry| entry.stage == Stage::Serving).await;
    assert_ne!(entry.record, first.record);
    until(&mut readers, "moved", |state| {
        let mut all = state.snapshot().instances().iter();
        state.snapshot().len() == 1 && all.all(|one| one.record_id() == entry.record)
    })
    .await;
    next.close(How::Keep, GRACE).await;
    assert!(!fs::read_to_string(&state).unwrap().contains("127.1:"));
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_withdrawn_at_the_end_is_not_brought_back() {
    for limit in [Duration::ZERO, Duration::from_secs(1), GRACE] {
        let (folder, (backend, registry)) = (folder(), scripted());
        let open = Registrations::open(registry, Settings::default(), folder.path());
        let registrations = open.await.unwrap();
        registrations.register(&me(), greeter()).await.unwrap();
        backend.registrar.answer_all(Op::Withdraw, Answer::Hang);
        let begun = Instant::now();
        let left = registrations.close(How::Deregister, limit).await;
        assert_eq!(left.len(), 1);
        let most = limit + LAST_WRITE + Duration::from_millis(100);
        assert!(begun.elapsed() <= most, "{:?}", begun.elapsed());
        let next = opened(&Memory::new(), folder.path()).await;
        assert_eq!(next.entries(), []);
    }
}

#[tokio::test]
async fn an_agent_that_is_killed_while_it_withdraws_brings_nothing_back() {
    let folder = folder();
    let path = folder.path().to_owned();
    killed_after(async move || {
        let (backend, registry) = scripted();
        let open = Registrations::open(registry, Settings::default(), &path);
        let registrations = open.await.unwrap();
        registrations.register(&me(), greeter()).await.unwrap();
        backend.registrar.answer_all(Op::Withdraw, Answer::Hang);
        let closing = registrations.close(How::Deregister, LONG);
        let written = async || {
            let state = fs::read_to_string(path.join("registrations.json"));
            state.unwrap().contains("\"ending\":true")
        };
        tokio::select! {
            left = closing => panic!("{left:?}"),
            _ = eventually("written", LONG, written) => {}
        }
    })
    .await;
    let memory = Memory::new();
    let open = || Registrations::open(memory.connect(), Settings::default(), folder.path());
    let next = once_free(open).await;
    assert_eq!(next.entries(), []);
}

#[tokio::test]
async fn that_all_is_to_end_is_on_disk_before_anything_is_withdrawn() {
    let folder = folder();
    let (backend, registry) = scripted();
    let open = Registrations::open(registry, Settings::default(), folder.path());
    let registrations = open.await.unwrap();
    registrations.register(&me(), greeter()).await.unwrap();
    backend.registrar.answer_all(Op::Withdraw, Answer::Hang);
    let closing = registrations.close(How::Deregister, GRACE);
    tokio::select! {
        left = closing => panic!("{left:?}"),
        _ = backend.registrar.called(Op::Withdraw, 1) => {}
    }
    let state = fs::read_to_string(folder.path().join("registrations.json")).unwrap();
    assert!(state.contains("\"ending\":true"), "{state}");
}

#[tokio::test]
async fn a_close_that_is_let_go_of_withdraws_nevertheless() {
    let (memory, folder) = (Memory::new(), folder());
    let registrations = opened(&memory, folder.path()).await;
    registrations.register(&me(), long_lived()).await.unwrap();
    let mut readers = memory.connect().subscribe("greeter").unwrap();
    until(&mut readers, "there", is_live_with(1)).await;
    tokio::select! {
        biased;
        left = registrations.close(How::Deregister, GRACE) => panic!("{left:?}"),
        () = async {} => {}
    }
    until(&mut readers, "withdrawn", is_live_with(0)).await;
    // Waited for once more.
    let left = registrations.close(How::Deregister, GRACE).await;
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(opened(&memory, folder.path()).await.entries(), []);
}

#[tokio::test]
async fn after_one_that_was_killed_while_it_drained_the_next_agent_withdraws_and_brings_nothing_back()
 {
    let (memory, folder) = (Memory::new(), folder());
    let (its_memory, its_state) = (memory.clone(), folder.path().to_owned());
    killed_after(async move || {
        let registrations = opened(&its_memory, &its_state).await;
        registrations.register(&me(), long_lived()).await.unwrap();
        registrations.note_end().await;
        registrations.drain(&me(), &greeters(), LONG).await.unwrap();
    })
    .await;
    let mut readers = memory.connect().subscribe("greeter").unwrap();
    until(&mut readers, "left", is_live_with(1)).await;
    let open = || Registrations::open(memory.connect(), Settings::default(), folder.path());
    let next = once_free(open).await;
    assert_eq!(next.entries(), []);
    until(&mut readers, "withdrawn", is_live_with(0)).await;
    // From here on the state is that of the next one.
    next.register(&me(), greeter()).await.unwrap();
    next.close(How::Keep, GRACE).await;
    assert_eq!(opened(&memory, folder.path()).await.entries().len(), 1);
}

#[tokio::test]
async fn an_address_that_has_changed_is_remembered_by_an_agent_that_is_killed_before_it_has_registered()
 {
    let (memory, folder) = (Memory::new(), folder());
    let open = async |registry, host: &str, path: &Path| {
        let mut settings = Settings::default();
        settings.advertised_host = Some(host.to_owned());
        Registrations::open(registry, settings, path).await.unwrap()
    };
    let before = open(memory.connect(), "10.0.0.7", folder.path()).await;
    let mut by_port = long_lived();
    (by_port.address, by_port.port) = (None, Some(50051));
    before.register(&me(), by_port).await.unwrap();
    before.close(How::Keep, GRACE).await;
    let mut readers = memory.connect().subscribe("greeter").unwrap();
    until(&mut readers, "left", is_live_with(1)).await;

    let path = folder.path().to_owned();
    killed_after(async move || {
        let (backend, registry) = scripted();
        backend.registrar.answer_all(Op::Register, Answer::Hang);
        let _moved = open(registry, "10.0.0.8", &path).await;
        let written = async || {
            let state = fs::read_to_string(path.join("registrations.json"));
            state.unwrap().contains("10.0.0.8")
        };
        eventually("written", LONG, written).await;
    })
    .await;
    let mut settings = Settings::default();
    settings.advertised_host = Some("10.0.0.8".to_owned());
    let open = || Registrations::open(memory.connect(), settings.clone(), folder.path());
    let next = once_free(open).await;
    let state = until(&mut readers, "moved", |state| {
        let mut all = state.snapshot().instances().iter();
        state.snapshot().len() == 1 && all.all(|one| one.endpoint().to_string() == "10.0.0.8:50051")
    });
    state.await;
    // What has gone is not gone for again.
    let forgotten = async || {
        let state = fs::read_to_string(folder.path().join("registrations.json"));
        !state.unwrap().contains("replaces")
    };
    eventually("forgotten", LONG, forgotten).await;
    next.close(How::Deregister, GRACE).await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_ends_withdraws_also_what_it_was_refused_at_its_start() {
    let (memory, folder) = (Memory::new(), folder());
    let mut settings = Settings::default();
    settings.commands = Commands::Allowed;
    let before = Registrations::open(memory.connect(), settings, folder.path())
        .await
        .unwrap();
    let mut checked = long_lived();
    checked.checks = declared(json!({
        "service": "greeter", "port": 1, "checks": [{"kind": "command", "command": ["true"]}],
    }))
    .checks;
    before.register(&me(), checked).await.unwrap();
    before.close(How::Keep, GRACE).await;
    let mut readers = memory.connect().subscribe("greeter").unwrap();
    until(&mut readers, "left", is_live_with(1)).await;
    let poor = opened(&memory, folder.path()).await;
    let left = poor.close(How::Deregister, GRACE).await;
    assert!(left.is_empty(), "{left:?}");
    until(&mut readers, "withdrawn", is_live_with(0)).await;
    assert_eq!(opened(&memory, folder.path()).await.entries(), []);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_hands_over_does_not_wait_for_what_has_failed_for_good() {
    let folder = folder();
    let (_backend, registry) = scripted();
    let open = async |registry| {
        Registrations::open(registry, Settings::default(), folder.path())
            .await
            .unwrap()
    };
    let before = open(registry).await;
    before.register(&me(), greeter()).await.unwrap();
    before.close(How::Keep, GRACE).await;
    let (backend, registry) = scripted();
    let never = Error::new(ErrorKind::InvalidInput, "scripted").because("not so");
    backend
        .registrar
        .answer_all(Op::Register, Answer::Fail(never));
    let failing = open(registry).await;
    until_entry(&failing, "failed", |entry| {
        entry
            .error
            .as_ref()
            .is_some_and(|why| why.contains("not so"))
    })
    .await;
    let begun = Instant::now();
    let left = failing.close(How::Keep, GRACE).await;
    assert_eq!(left.len(), 1);
    assert!(begun.elapsed() < GRACE / 2, "{:?}", begun.elapsed());
    let next = open(scripted().1).await;
    assert_eq!(next.entries().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_a_run_said_of_its_readiness_outlives_the_agent() {
    let (memory, folder) = (Memory::new(), folder());
    let before = opened(&memory, folder.path()).await;
    before.register(&me(), of_run("r1", 3)).await.unwrap();
    before.set_ready(&me(), &greeters(), false).await.unwrap();
    before.close(How::Keep, GRACE).await;
    let next = opened(&memory, folder.path()).await;
    let again = next.register(&me(), of_run("r1", 3)).await.unwrap();
    assert_eq!(again.stage, Stage::Registered);
}

#[tokio::test(start_paused = true)]
async fn one_registration_that_cannot_be_read_does_not_cost_the_others() {
    let (memory, folder) = (Memory::new(), folder());
    let state = folder.path().join("state.json");
    let before = opened(&memory, &state).await;
    before.register(&me(), greeter()).await.unwrap();
    before.close(How::Keep, GRACE).await;
    let written = fs::read_to_string(&state).unwrap();
    let list = "\"registrations\":[";
    let damaged = written.replacen(list, &format!("{list}{{\"owner\":\"a\"}},"), 1);
    fs::write(&state, &damaged).unwrap();
    let next = opened(&memory, &state).await;
    assert_eq!(next.entries().len(), 1);
    next.close(How::Keep, GRACE).await;
    assert_eq!(set_aside(folder.path()), damaged.as_bytes());
    assert!(
        !fs::read_to_string(&state)
            .unwrap()
            .contains(r#"{"owner":"a"}"#)
    );
}

#[tokio::test(start_paused = true)]
async fn a_state_that_was_cut_short_keeps_what_stands_before_the_cut_and_tells_what_was_lost() {
    let (memory, folder) = (Memory::new(), folder());
    let state = folder.path().join("state.json");
    let before = opened(&memory, &state).await;
    for port in 1..=3 {
        let one = declared(json!({"service": "greeter", "address": format!("10.0.0.7:{port}")}));
        before.register(&me(), one).await.unwrap();
    }
    before.close(How::Keep, GRACE).await;
    let whole = fs::read(&state).unwrap();
    fs::write(&state, &whole[..whole.len() - 10]).unwrap();
    let next = opened(&memory, &state).await;
    assert_eq!(next.entries().len(), 2);
    let damage = next.state_damage().unwrap();
    assert!(damage.contains(".damaged-"), "{damage}");
    assert_eq!(set_aside(folder.path()).len(), whole.len() - 10);
    next.close(How::Deregister, GRACE).await;
    assert_eq!(opened(&memory, &state).await.state_damage(), None);
}

#[tokio::test(start_paused = true)]
async fn records_that_cannot_be_left_are_withdrawn_and_that_is_in_order() {
    let folder = folder();
    let (backend, registry) = scripted();
    let ends = Error::new(ErrorKind::Unsupported, "scripted").because("it ends with the session");
    backend
        .registrar
        .answer_all(Op::Release, Answer::Fail(ends));
    let before = Registrations::open(registry, Settings::default(), folder.path());
    let before = before.await.unwrap();
    before.register(&me(), greeter()).await.unwrap();
    assert!(before.close(How::Keep, GRACE).await.is_empty());
    assert_eq!(backend.registrar.calls_of(Op::Withdraw).len(), 1);
    let next = Registrations::open(scripted().1, Settings::default(), folder.path());
    assert_eq!(next.await.unwrap().entries().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_folder_of_the_state_is_made_for_its_user_alone_and_not_the_one_above() {
    use std::os::unix::fs::PermissionsExt;
    let folder = folder();
    let inside = folder.path().join("sd-agent");
    let state = inside.join("state.json");
    Store::check(&state).await.unwrap();
    assert!(!inside.exists(), "a check makes nothing");
    opened(&Memory::new(), &state)
        .await
        .close(How::Keep, GRACE)
        .await;
    let mode = fs::metadata(&inside).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);

    let far = folder.path().join("a/b/state.json");
    for refused in [
        Store::check(&far).await.map(drop),
        Store::open(&far).await.map(drop),
    ] {
        let why = refused.unwrap_err().report().to_string();
        assert!(why.contains("a/b"), "{why}");
    }
    // While an agent has it.
    let running = opened(&Memory::new(), &state).await;
    Store::check(&state).await.unwrap();
    running.close(How::Deregister, GRACE).await;
    fs::write(&state, r#"{"version": 2, "registrations": []}"#).unwrap();
    let newer = Store::check(&state).await.unwrap_err();
    assert_eq!(newer.kind(), ErrorKind::Unsupported);
    fs::write(&state, "{").unwrap();
    let damage = Store::check(&state).await.unwrap().unwrap();
    assert!(
        damage.contains("a start loses all registrations"),
        "{damage}"
    );
    assert_eq!(fs::read_to_string(&state).unwrap(), "{");
}

#[tokio::test(start_paused = true)]
async fn a_state_of_a_newer_version_is_left_alone() {
    let folder = folder();
    let state = folder.path().join("state.json");
    let newer = r#"{"version": 2, "registrations": []}"#;
    fs::write(&state, newer).unwrap();
    let opening = Registrations::open(Memory::new().connect(), Settings::default(), &state).await;
    let error = opening.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.report().to_string().contains("version 2"));
    assert_eq!(fs::read_to_string(&state).unwrap(), newer);
}

/// The one file that was kept aside.
fn set_aside(folder: &Path) -> Vec<u8> {
    let files = fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path());
    let is_aside = |path: &std::path::PathBuf| path.to_string_lossy().contains(".damaged-");
    let aside: Vec<_> = files.filter(is_aside).collect();
    let [aside] = &aside[..] else {
        panic!("not one file: {aside:?}");
    };
    let bytes = fs::read(aside).unwrap();
    fs::remove_file(aside).unwrap();
    bytes
}

#[tokio::test(start_paused = true)]
async fn a_damaged_state_is_moved_aside_and_the_agent_starts_without_it() {
    let (memory, folder) = (Memory::new(), folder());
    let state = folder.path().join("state.json");
    for damaged in [
        "{",
        r#"{"version": 0, "registrations": []}"#,
        r#"{"version": 1, "registrations": [{"owner": "a"}]}"#,
        "\0\u{1b}[2J",
    ] {
        fs::write(&state, damaged).unwrap();
        let registrations = opened(&memory, &state).await;
        assert_eq!(registrations.entries(), []);
        assert_eq!(set_aside(folder.path()), damaged.as_bytes());
        assert!(!state.exists());
        registrations.register(&me(), greeter()).await.unwrap();
        registrations.close(How::Keep, GRACE).await;
        let next = opened(&memory, &state).await;
        assert_eq!(next.entries().len(), 1);
        next.close(How::Deregister, GRACE).await;
    }
}

/// As a power failure, a bad disk or an editor leave it.
#[tokio::test(start_paused = true)]
async fn whatever_is_wrong_with_a_state_the_agent_starts_and_keeps_aside_what_it_cannot_read() {
    let (memory, folder) = (Memory::new(), folder());
    let state = folder.path().join("state.json");
    let before = opened(&memory, &state).await;
    for port in 1..=3 {
        let body = json!({"service": "greeter", "address": format!("10.0.0.7:{port}")});
        before.register(&me(), declared(body)).await.unwrap();
    }
    before.close(How::Keep, GRACE).await;
    let whole = fs::read(&state).unwrap();
    let text = String::from_utf8(whole.clone()).unwrap();
    let changed = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1).into_bytes()
    };
    let after = |end: &str| [&whole[..], end.as_bytes()].concat();
    for (damaged, read) in [
        // Not all of it was written, or other bytes than were meant.
        (whole[..whole.len() / 2].to_vec(), 1),
        (whole[..whole.len() - 1].to_vec(), 3),
        (vec![0; whole.len()], 0),
        ([&whole[..whole.len() / 2], &[0; 512]].concat(), 1),
        (after("\0\0\0"), 3),
        (after(&text), 3),
        ([&[0xff, 0xfe], &whole[..]].concat(), 3),
        ("[".repeat(100_000).into_bytes(), 0),
        // It is JSON, and something else than it should be.
        (b"[]".to_vec(), 0),
        (br#"{"version": 1}"#.to_vec(), 0),
        (br#"{"version": 1, "registrations": {}}"#.to_vec(), 0),
        (br#"{"version": "1", "registrations": []}"#.to_vec(), 0),
        (changed("\"version\":1", "\"version\":3"), 3),
        (changed("\"registrations\"", "\"registratiOns\""), 3),
        (changed("10.0.0.7:1\"", "10.0.0.7:3\""), 2),
        (changed("\"registered_at\":", "\"registered_at\":1"), 2),
        (
            changed("\"registered_at\":", "\"registered_at\":99999999999"),
            2,
        ),
        (changed("\"owner\":\"anonymous\"", "\"owner\":7"), 2),
        (changed("10.0.0.7:1\"", "nowhere\""), 2),
        (changed("\"incarnation\":\"", "\"incarnation\":\"x"), 2),
    ] {
        fs::write(&state, &damaged).unwrap();
        let shown = String::from_utf8_lossy(&damaged[..damaged.len().min(2000)]).into_owned();
        let next = opened(&memory, &state).await;
        assert_eq!(next.entries().len(), read, "{shown}");
        assert_eq!(set_aside(folder.path()), damaged, "{shown}");
        // And goes on as usual.
        next.register(&me(), greeter()).await.unwrap();
        next.close(How::Keep, GRACE).await;
        let last = opened(&memory, &state).await;
        assert_eq!(last.entries().len(), read + 1, "{shown}");
        last.close(How::Keep, GRACE).await;
    }
    // Any bit.
    for at in (0..whole.len()).step_by(whole.len() / 32) {
        let mut damaged = whole.clone();
        damaged[at] ^= 1 << (at % 7);
        fs::write(&state, &damaged).unwrap();
        let next = opened(&memory, &state).await;
        assert!(next.entries().len() >= 2, "{at}");
        next.close(How::Keep, GRACE).await;
    }
}

/// A small disk of its own, which is gone with this.
#[cfg(target_os = "linux")]
struct SmallDisk(TempDir);

#[cfg(target_os = "linux")]
impl SmallDisk {
    /// Or why there can be none.
    fn new() -> Result<Self, String> {
        let folder = folder();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=64k", "sd-agent-test"])
            .arg(folder.path())
            .output();
        let mounted = mounted.map_err(|error| error.to_string())?;
        if mounted.status.success() {
            Ok(Self(folder))
        } else {
            Err(String::from_utf8_lossy(&mounted.stderr).trim().to_owned())
        }
    }
}

#[cfg(target_os = "linux")]
impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Also while something on it is open.
        let unmount = std::process::Command::new("umount")
            .arg("-l")
            .arg(self.0.path())
            .status();
        drop(unmount);
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn on_a_full_disk_registrations_go_on_the_state_stays_whole_and_is_written_once_there_is_room()
 {
    let disk = match SmallDisk::new() {
        Ok(disk) => disk,
        Err(why) => {
            // Past the capture of output: a test that was not run must not look as if it had passed.
            let told = "skipped, for lack of the right to mount a disk of its own";
            let name = "on_a_full_disk_registrations_go_on_the_state_stays_whole_and_is_written_once_there_is_room";
            writeln!(std::io::stderr(), "{told}: {name}: {why}").unwrap();
            return;
        }
    };
    let (memory, state) = (Memory::new(), disk.0.path().join("state.json"));
    let registrations = opened(&memory, &state).await;
    let mut trouble = registrations.state_trouble();
    registrations.register(&me(), greeter()).await.unwrap();
    let before = fs::read(&state).unwrap();
    // Nothing is left.
    let filler = disk.0.path().join("filler");
    let filling = fs::write(&filler, vec![0; 1024 * 1024]).unwrap_err();
    assert_eq!(filling.kind(), std::io::ErrorKind::StorageFull);
    let other = declared(json!({"service": "other", "address": "10.0.0.7:1"}));
    let entry = registrations.register(&me(), other).await.unwrap();
    assert_eq!(entry.stage, Stage::Serving);
    let why = timeout(LONG, trouble.wait_for(Option::is_some)).await;
    let why = why.unwrap().unwrap().clone().unwrap_or_default();
    assert!(why.contains("No space left"), "{why}");
    assert_eq!(fs::read(&state).unwrap(), before);
    fs::remove_file(&filler).unwrap();
    let healed = timeout(LONG, trouble.wait_for(Option::is_none)).await;
    drop(healed.unwrap().unwrap());
    assert!(fs::read_to_string(&state).unwrap().contains("other"));
    registrations.close(How::Keep, GRACE).await;
}

#[tokio::test(start_paused = true)]
async fn a_state_that_cannot_be_written_is_told_and_written_later_and_registrations_go_on() {
    let (memory, folder) = (Memory::new(), folder());
    let state = folder.path().join("state.json");
    let registrations = opened(&memory, &state).await;
    let mut trouble = registrations.state_trouble();
    // A folder with something in it is in the way of the new file.
    let in_the_way = folder.path().join("state.json.new");
    fs::create_dir_all(in_the_way.join("x")).unwrap();
    let entry = registrations.register(&me(), greeter()).await.unwrap();
    assert_eq!(entry.stage, Stage::Registered);
    let why = tokio::time::timeout(LONG, trouble.wait_for(Option::is_some))
        .await
        .unwrap()
        .unwrap()
        .clone();
    assert!(why.unwrap().contains("state.json"));
    fs::remove_dir_all(&in_the_way).unwrap();
    let healed = tokio::time::timeout(2 * LONG, trouble.wait_for(Option::is_none)).await;
    healed.unwrap().unwrap();
    assert!(fs::read_to_string(&state).unwrap().contains("greeter"));
}

/// A folder with something in it is in the way of the new file: as a full disk has it, no file can be written, and one can be removed.
fn block_writing(state: &Path) {
    fs::create_dir_all(state.with_extension("json.new").join("x")).unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_withdrawn_while_the_state_cannot_be_written_says_so_and_is_gone_after_the_end() {
    let (memory, folder) = (Memory::new(), folder());
    let state = folder.path().join("state.json");
    let before = opened(&memory, &state).await;
    before.register(&me(), long_lived()).await.unwrap();
    let other = declared(json!({"service": "other", "address": "10.0.0.7:1"}));
    before.register(&me(), other).await.unwrap();
    block_writing(&state);
    // Each time it is asked for.
    for _ in 0..2 {
        let gone = before.deregister(&me(), &greeters()).await.unwrap();
        assert_eq!(gone[0].stage, Stage::Deregistered);
        let why = gone[0].error.as_deref().unwrap_or_default();
        assert!(why.contains("the state on disk still has it"), "{why}");
        assert!(why.contains("cannot be written"), "{why}");
    }
    assert!(fs::read_to_string(&state).unwrap().contains("greeter"));
    let left = before.close(How::Deregister, GRACE).await;
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(before.state_trouble().borrow().as_deref(), None);
    assert!(!state.exists());
    let next = opened(&memory, &state).await;
    assert_eq!(next.entries(), []);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_can_neither_write_nor_remove_its_state_says_so_at_its_end() {
    for how in [How::Deregister, How::Keep] {
        let (memory, folder) = (Memory::new(), folder());
        let state = folder.path().join("state.json");
        let before = opened(&memory, &state).await;
        before.register(&me(), long_lived()).await.unwrap();
        fs::remove_file(&state).unwrap();
        fs::create_dir_all(state.join("x")).unwrap();
        before.close(how, GRACE).await;
        let trouble = before.state_trouble().borrow().clone();
        let why = trouble.unwrap_or_default();
        assert!(why.contains("cannot be written"), "{how:?}: {why}");
    }
}

#[tokio::test]
async fn after_one_that_was_killed_at_its_end_and_could_not_write_the_next_agent_withdraws_and_brings_nothing_back()
 {
    let (memory, folder) = (Memory::new(), folder());
    let state = folder.path().join("state.json");
    let (its_memory, its_state) = (memory.clone(), state.clone());
    killed_after(async move || {
        let registrations = opened(&its_memory, &its_state).await;
        registrations.register(&me(), long_lived()).await.unwrap();
        block_writing(&its_state);
        registrations.note_end().await;
    })
    .await;
    let mut readers = memory.connect().subscribe("greeter").unwrap();
    until(&mut readers, "left", is_live_with(1)).await;
    let open = || Registrations::open(memory.connect(), Settings::default(), &state);
    let next = once_free(open).await;
    assert_eq!(next.entries(), []);
    until(&mut readers, "withdrawn", is_live_with(0)).await;
    // From here on the state is that of the next one.
    fs::remove_dir_all(state.with_extension("json.new")).unwrap();
    next.register(&me(), greeter()).await.unwrap();
    next.close(How::Keep, GRACE).await;
    assert_eq!(opened(&memory, &state).await.entries().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_state_has_one_agent_and_only_its_user_can_read_it() {
    use std::os::unix::fs::{PermissionsExt, symlink};

    let (memory, folder) = (Memory::new(), folder());
    let state = folder.path().join("state.json");
    // What another user may have put there is not followed.
    let elsewhere = folder.path().join("elsewhere");
    fs::write(&elsewhere, "mine").unwrap();
    symlink(&elsewhere, folder.path().join("state.json.new")).unwrap();
    let registrations = opened(&memory, &state).await;
    registrations.register(&me(), greeter()).await.unwrap();
    assert_eq!(
        fs::metadata(&state).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "mine");
    let second = Registrations::open(memory.connect(), Settings::default(), &state);
    let error = second.await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.report().to_string().contains("another agent"));
}

#[tokio::test(start_paused = true)]
async fn of_many_changes_at_once_the_last_state_is_on_disk() {
    let (memory, folder) = (Memory::new(), folder());
    let registrations = opened(&memory, folder.path()).await;
    let asking = (1..=500u16).map(|at| {
        let registrations = registrations.clone();
        let body = json!({"service": "greeter", "address": format!("10.0.0.7:{at}")});
        tokio::spawn(async move { registrations.register(&me(), declared(body)).await.unwrap() })
    });
    let asking: Vec<_> = asking.collect();
    for asked in asking {
        asked.await.unwrap();
    }
    // Each was on disk when its caller was answered.
    let written = fs::read(folder.path().join("registrations.json")).unwrap();
    let written: serde_json::Value = serde_json::from_slice(&written).unwrap();
    assert_eq!(written["registrations"].as_array().unwrap().len(), 500);
    let age = SystemTime::now().duration_since(registrations.entries()[0].registered_at);
    assert!(age.unwrap_or_default() < LONG);
}
