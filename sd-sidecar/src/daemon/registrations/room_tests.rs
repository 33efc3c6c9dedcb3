use serde_json::json;

use super::*;

#[tokio::test]
async fn what_the_state_has_no_room_for_is_refused_and_what_is_there_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let registry = sd_core::memory::Memory::new().connect();
    let state = folder.path().join("state.json");
    let registrations = Registrations::open(registry, Settings::default(), state);
    let registrations = registrations.await.unwrap();
    let me = Caller("me".into());
    let declared = |port: u16, version: &str| -> Declaration {
        let address = format!("10.0.0.7:{port}");
        let body = json!({"service": "greeter", "id": port.to_string(), "address": address, "version": version});
        serde_json::from_value(body).unwrap()
    };
    let first = registrations.register(&me, declared(1, "1.2.3"));
    first.await.unwrap();
    let store = registrations.shared.store.as_ref().unwrap();
    store.will_grow(u64::MAX);

    let refused = registrations.register(&me, declared(2, "1.2.3")).await;
    let Err(Refused::TooMany(told)) = refused else {
        panic!("{refused:?}");
    };
    assert!(told.contains("the state on disk"), "{told}");
    let longer = registrations.register(&me, declared(1, "1.2.3-longer"));
    let longer = longer.await;
    assert!(matches!(longer, Err(Refused::TooMany(_))), "{longer:?}");
    let replayed = registrations.register(&me, declared(1, "1.2.3"));
    assert_eq!(replayed.await.unwrap().stage, Stage::Serving);
    // Once it is written, only what is there counts.
    let shorter = registrations.register(&me, declared(1, "1.2"));
    assert_eq!(shorter.await.unwrap().instance.version(), Some("1.2"));
    store.flush().await.unwrap();
    let second = registrations.register(&me, declared(2, "1.2.3"));
    second.await.unwrap();
}
