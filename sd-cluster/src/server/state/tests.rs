//! The rules of sessions, lists and configurations, without connections.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::etp::message::Message;
use crate::server::state::VariableKind;
use crate::server::store::InMemory;

fn state() -> State {
    with(|_| {})
}

fn with(change: impl FnOnce(&mut Limits)) -> State {
    let mut limits = Limits::default();
    change(&mut limits);
    State::new(limits, Box::new(InMemory), Kept::default())
}

/// A connection, with what was sent to it.
pub(super) struct Client {
    pub(super) id: SessionId,
    outbox: Outbox,
}

impl Client {
    fn connect(state: &mut State, module: &str) -> Self {
        let outbox = Outbox::default();
        let id = state.connect(module, outbox.clone()).unwrap();
        Self { id, outbox }
    }

    /// Connects, and declares an instance at this address.
    pub(super) fn ready(state: &mut State, module: &str, ip: &str) -> Self {
        let client = Self::connect(state, module);
        state
            .ready(client.id, declaration(module, ip, "9999"))
            .unwrap();
        client
    }

    /// Names and data of all that was sent since this was called last.
    fn got(&self) -> Vec<(String, Value)> {
        let sent = std::iter::from_fn(|| self.outbox.take());
        sent.map(|bytes| {
            let message = Message::decode(&bytes).unwrap();
            assert_eq!(message.ack_id, 0);
            let name = String::from_utf8(message.name.to_vec()).unwrap();
            (name, serde_json::from_slice(&message.data).unwrap())
        })
        .collect()
    }
}

fn declaration(module: &str, ip: &str, port: &str) -> BackendDeclaration {
    let declared = json!({
        "moduleName": module, "version": "1", "libVersion": "v1", "transport": "",
        "endpoints": [{"path": "a/b", "inner": true}], "requiredModules": null,
        "address": {"ip": ip, "port": port}, "metricsAutodiscovery": {"address": "m:1", "labels": null},
    });
    serde_json::from_value(declared).unwrap()
}

impl State {
    /// Writes as an operator does.
    fn set(&mut self, name: &str, data: &str, expected: Option<u32>) -> sd_core::Result<u32> {
        self.set_config(name, data, expected, Author::Operator)
    }
}

fn requirements(modules: &[&str], require_routes: bool) -> ModuleRequirements {
    ModuleRequirements {
        required_modules: modules.iter().map(|&name| name.to_owned()).collect(),
        require_routes,
    }
}

fn sent(config: &str) -> crate::protocol::config_data::ConfigData {
    serde_json::from_str(&format!(
        r#"{{"version":"1","schema":{{}},"config":{config}}}"#
    ))
    .unwrap()
}

fn event(name: &str, data: Value) -> (String, Value) {
    (name.to_owned(), data)
}

fn host(ip: &str) -> Value {
    json!({"ip": ip, "port": "9999"})
}

/// What isp-config-service's own test asserts of two instances and a module that follows them.
#[test]
fn a_module_sees_two_hosts_then_one_and_three_lists_of_routes() {
    let state = &mut state();
    let _first = Client::ready(state, "A", "10.2.9.1");
    let second = Client::ready(state, "A", "10.2.9.2");
    state.tell();
    let reader = Client::connect(state, "B");
    state.introduce(reader.id, &sent("{}")).unwrap();
    state
        .require(reader.id, &requirements(&["A"], true))
        .unwrap();
    state.tell();
    let got = reader.got();
    assert_eq!(got.len(), 3);
    assert_eq!(got[0], event(CONFIG_WHEN_CONNECTED, json!({})));
    // The newest first.
    let both = json!([host("10.2.9.2"), host("10.2.9.1")]);
    assert_eq!(got[1], event("A_MODULE_CONNECTED", both));
    assert_eq!(
        (&*got[2].0, got[2].1.as_array().unwrap().len()),
        (ROUTES_WHEN_CONNECTED, 2)
    );

    state
        .ready(reader.id, declaration("B", "10.2.9.3", "9999"))
        .unwrap();
    state.tell();
    let got = reader.got();
    assert_eq!((got.len(), &*got[0].0), (1, ROUTES_CHANGED));
    assert_eq!(got[0].1.as_array().unwrap().len(), 3);

    state.set("B", r#"{"someString": "value"}"#, None).unwrap();
    state.disconnect(second.id);
    state.tell();
    let got = reader.got();
    assert_eq!(
        got[0],
        event(CONFIG_CHANGED, json!({"someString": "value"}))
    );
    assert_eq!(
        got[1],
        event("A_MODULE_CONNECTED", json!([host("10.2.9.1")]))
    );
    assert_eq!(got[2].1.as_array().unwrap().len(), 2);
    let [a, b] = &state.view_modules()[..] else {
        panic!("two modules");
    };
    assert_eq!((&*a.name, a.connections, a.instances.len()), ("A", 1, 1));
    assert_eq!((&*b.name, b.schema.as_deref()), ("B", Some("{}")));
}

#[test]
fn a_route_is_what_was_declared_with_its_defaults_and_without_metrics() {
    let state = &mut state();
    let _a = Client::ready(state, "A", "h");
    let reader = Client::connect(state, "B");
    state.require(reader.id, &requirements(&[], true)).unwrap();
    let expected = json!([{
        "moduleName": "A", "version": "1", "libVersion": "v1", "transport": "grpc",
        "endpoints": [{"path": "a/b", "inner": true, "userAuthRequired": false, "httpMethod": "POST", "extra": null}],
        "requiredModules": [], "address": host("h"), "metricsAutodiscovery": null,
    }]);
    assert_eq!(reader.got(), [event(ROUTES_WHEN_CONNECTED, expected)]);
    assert_eq!(state.view_metrics()[0].address, "m:1");
}

#[test]
fn a_module_that_no_one_knows_is_followed_by_its_name_and_the_list_before_is_empty() {
    let state = &mut state();
    let reader = Client::connect(state, "B");
    let wanted = requirements(&["unknown", "unknown"], false);
    state.require(reader.id, &wanted).unwrap();
    // Again, with another one: both are followed.
    state
        .require(reader.id, &requirements(&["more"], false))
        .unwrap();
    assert_eq!(
        reader.got(),
        [
            event("unknown_MODULE_CONNECTED", json!([])),
            event("more_MODULE_CONNECTED", json!([]))
        ]
    );
    let _one = Client::ready(state, "unknown", "10.0.0.1");
    let _other = Client::ready(state, "more", "10.0.0.2");
    state.tell();
    let names: Vec<String> = reader.got().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["more_MODULE_CONNECTED", "unknown_MODULE_CONNECTED"]);
}

#[test]
fn what_changes_while_a_list_is_made_is_told_in_one() {
    let state = &mut state();
    let reader = Client::connect(state, "B");
    state
        .require(reader.id, &requirements(&["A"], true))
        .unwrap();
    reader.got();
    let clients: Vec<Client> = (0..100)
        .map(|nth| Client::ready(state, "A", &format!("h{nth}")))
        .collect();
    state.tell();
    let got = reader.got();
    assert_eq!(got.len(), 2);
    assert_eq!(got[0].1.as_array().unwrap().len(), 100);
    state.tell();
    assert!(reader.got().is_empty());
    for client in clients {
        state.disconnect(client.id);
    }
    state.tell();
    assert_eq!(reader.got()[0], event("A_MODULE_CONNECTED", json!([])));
}

#[test]
fn a_second_declaration_and_one_that_no_reader_could_use_are_refused() {
    let state = &mut state();
    let client = Client::ready(state, "A", "10.0.0.1");
    let again = state
        .ready(client.id, declaration("A", "10.0.0.2", "1"))
        .unwrap_err();
    assert!(again.starts_with("upsert backend in store"), "{again}");
    let other = Client::connect(state, "B");
    for (module, ip, port, why) in [
        ("A", "h", "1", "declared on a connection of B"),
        ("B", "", "1", "address"),
        ("B", "0.0.0.0", "1", "address"),
        ("B", "a b", "1", "address"),
        ("B", "h", "0", "address"),
        ("B", "h", "http", "address"),
        ("B", "h:1", "1", "address"),
    ] {
        let refused = state
            .ready(other.id, declaration(module, ip, port))
            .unwrap_err();
        assert!(refused.contains(why), "{ip} {port}: {refused}");
    }
    let mut odd = declaration("B", "h", "1");
    odd.transport = "amqp".to_owned();
    assert!(state.ready(other.id, odd).unwrap_err().contains("amqp"));
    // What was refused left nothing, so that it can be declared well.
    state
        .ready(other.id, declaration("B", "[fe80::1]", "1"))
        .unwrap();
    let hosts = state.view_routes();
    assert_eq!(hosts[0].address.ip, "fe80::1");
}

#[test]
fn a_module_that_serves_nothing_is_among_the_routes_and_no_host() {
    let state = &mut state();
    let client = Client::connect(state, "A");
    let mut empty = declaration("A", "", "");
    empty.transport = "empty".to_owned();
    state.ready(client.id, empty).unwrap();
    let reader = Client::connect(state, "B");
    state
        .require(reader.id, &requirements(&["A"], true))
        .unwrap();
    let got = reader.got();
    assert_eq!(got[0], event("A_MODULE_CONNECTED", json!([])));
    assert_eq!(got[1].1.as_array().unwrap().len(), 1);
}

#[test]
fn the_first_default_is_kept_and_later_ones_are_not() {
    let state = &mut state();
    let client = Client::connect(state, "A");
    let default = r#"{ "b":1,  "a" : 9007199254740993 }"#;
    state.introduce(client.id, &sent(default)).unwrap();
    let message = Message::decode(&client.outbox.take().unwrap()).unwrap();
    // Byte for byte.
    assert_eq!(&message.data[..], default.as_bytes());
    state.introduce(client.id, &sent(r#"{"other":1}"#)).unwrap();
    assert_eq!(client.got()[0].1["b"], 1);
    assert_eq!(state.configs("A").unwrap().len(), 1);
    let bare = Client::connect(state, "B");
    state.introduce(bare.id, &sent("null")).unwrap();
    assert_eq!(bare.got()[0].1, json!({}));
}

#[test]
fn a_change_is_checked_against_the_version_that_was_read_and_older_ones_are_dropped() {
    let state = &mut with(|limits| limits.versions = 3);
    assert_eq!(state.set("A", "1", Some(0)).unwrap(), 1);
    let conflict = state.set("A", "2", Some(0)).unwrap_err();
    assert_eq!(conflict.kind(), sd_core::ErrorKind::Conflict);
    assert_eq!(state.set("A", "1", None).unwrap(), 1, "the same text");
    for version in 2..=5 {
        let data = version.to_string();
        assert_eq!(state.set("A", &data, Some(version - 1)).unwrap(), version);
    }
    let kept: Vec<u32> = state
        .configs("A")
        .unwrap()
        .iter()
        .map(StoredConfig::version)
        .collect();
    assert_eq!(kept, [5, 4, 3]);
    assert_eq!(state.stored_bytes, 3);
    for (data, why) in [("{", "no JSON"), ("", "no JSON"), (r#"["_Var(a)"]"#, "[a]")] {
        let refused = state.set("A", data, None).unwrap_err();
        assert_eq!(refused.kind(), sd_core::ErrorKind::InvalidInput);
        assert!(
            refused.report().to_string().contains(why),
            "{}",
            refused.report()
        );
    }
    state.delete_module("A").unwrap();
    assert_eq!((state.stored_bytes, state.view_modules().len()), (0, 0));
}

/// What isp-config-service's own test asserts of variables.
#[test]
fn variables_are_put_in_kept_while_they_are_used_and_their_change_is_sent() {
    let state = &mut state();
    state.set_variable("varA", Variable::text("a")).unwrap();
    let client = Client::connect(state, "A");
    let default = r#"{"a":"_Var(varA)","b":"_ToInt(_Var(varB))","c":"{{ x }}"}"#;
    let refused = state.introduce(client.id, &sent(default)).unwrap_err();
    assert_eq!(refused, "missing variables in initial config: [varB]");
    assert!(state.configs("A").unwrap().is_empty());
    state.set_variable("varB", Variable::secret("123")).unwrap();
    state.introduce(client.id, &sent(default)).unwrap();
    assert_eq!(
        client.got()[0].1,
        json!({"a": "a", "b": 123, "c": "{{ x }}"})
    );

    let used = state.delete_variable("varA").unwrap_err();
    assert_eq!(used.kind(), sd_core::ErrorKind::Conflict);
    state.set_variable("varB", Variable::secret("124")).unwrap();
    assert_eq!(
        client.got(),
        [event(
            CONFIG_CHANGED,
            json!({"a": "a", "b": 124, "c": "{{ x }}"})
        )]
    );
    // The same value is no change.
    state
        .set_variable("varB", Variable::secret("124").described("b"))
        .unwrap();
    assert!(client.got().is_empty());
    let views = state.view_variables();
    let shown: Vec<(&str, VariableKind, &str)> = views
        .iter()
        .map(|view| (&*view.name, view.kind, &*view.value))
        .collect();
    assert_eq!(
        shown,
        [
            ("varA", VariableKind::Text, "a"),
            ("varB", VariableKind::Secret, "")
        ]
    );
    assert_eq!(views[0].used_by, [Arc::from("A")]);
    state.set("A", "{}", None).unwrap();
    state.delete_variable("varA").unwrap();
}

#[test]
fn what_ends_leaves_nothing_behind() {
    let state = &mut state();
    for round in 0..3 {
        let clients: Vec<Client> = (0..10)
            .map(|nth| {
                let client = Client::ready(state, &format!("m{nth}"), "h");
                state
                    .require(client.id, &requirements(&["x", "y"], true))
                    .unwrap();
                client
            })
            .collect();
        for client in &clients {
            state.disconnect(client.id);
            // An end that is told twice is told once.
            state.disconnect(client.id);
        }
        let refused = state.ready(clients[0].id, declaration("m0", "h", "1"));
        assert!(
            refused.is_err(),
            "a declaration after the end, in round {round}"
        );
        state.tell();
        assert!(state.sessions.is_empty() && state.followers.is_empty());
        assert!(state.routing.is_empty() && state.backends.is_empty());
        assert_eq!((state.declared_bytes, state.modules.len()), (0, 0));
    }
}

#[test]
fn nothing_grows_beyond_its_bound() {
    let state = &mut with(|limits| {
        limits.modules = 2;
        limits.required_modules = 2;
        limits.variables = 1;
        limits.stored_bytes = 100;
    });
    let a = Client::connect(state, "a");
    let _b = Client::connect(state, "b");
    let refused = state.connect("c", Outbox::default()).unwrap_err();
    assert!(refused.contains("no room for another module"), "{refused}");
    let _again = Client::connect(state, "a");

    state
        .require(a.id, &requirements(&["x", "y"], false))
        .unwrap();
    let refused = state
        .require(a.id, &requirements(&["z"], false))
        .unwrap_err();
    assert!(refused.contains("more than 2"), "{refused}");

    state.set_variable("v", Variable::text("1")).unwrap();
    assert!(state.set_variable("w", Variable::text("1")).is_err());
    let large = format!("\"{}\"", "x".repeat(100));
    let full = state.set("a", &large, None).unwrap_err();
    assert_eq!(full.kind(), sd_core::ErrorKind::Unavailable);
    let refused = state.introduce(a.id, &sent(&large)).unwrap_err();
    assert!(refused.starts_with("create initial config: "), "{refused}");
    assert_eq!(state.stored_bytes, 2);
}

#[test]
fn a_name_that_no_event_can_have_is_no_module() {
    let state = &mut state();
    for name in ["", "a||b", "__ack_a", "a\nb", &"x".repeat(256)] {
        assert!(state.connect(name, Outbox::default()).is_err(), "{name}");
        let refused = state.set(name, "{}", None).unwrap_err();
        assert_eq!(refused.kind(), sd_core::ErrorKind::InvalidInput);
    }
    assert!(state.view_modules().is_empty());
}

#[test]
fn one_module_cannot_take_the_room_of_all_others() {
    let state = &mut state();
    let _other = Client::ready(state, "other", "10.0.0.1");
    let before = state.declared_bytes;
    let client = Client::connect(state, "A");
    let large = |what: &str| {
        let mut large = declaration("A", "h", "1");
        let text = "x".repeat(1 << 20);
        let metrics = large.metrics_autodiscovery.get_or_insert_default();
        match what {
            "endpoint" => large.endpoints[0].path = text,
            "metrics" => drop(metrics.labels.insert(text, String::new())),
            _ => large.version = text,
        }
        large
    };
    for what in ["endpoint", "metrics", "version"] {
        let refused = state.ready(client.id, large(what)).unwrap_err();
        assert!(
            refused.contains("and the service takes 1048576: declare fewer endpoints"),
            "{what}: {refused}"
        );
        assert_eq!(state.declared_bytes, before);
    }
    // Nothing of it counts: the module can declare something else, also as much as a large one has.
    let mut endpoints = declaration("A", "h", "1");
    let endpoint = endpoints.endpoints[0].clone();
    endpoints.endpoints = vec![endpoint; 2000];
    state.ready(client.id, endpoints).unwrap();
}

#[test]
fn the_list_of_all_modules_never_exceeds_a_message() {
    let state = &mut state();
    let mut refused = None;
    for nth in 0..100 {
        let client = Client::connect(state, "A");
        let mut large = declaration("A", "h", "1");
        large.endpoints[0].path = "x".repeat(64 * 1024);
        large.version = nth.to_string();
        if let Err(why) = state.ready(client.id, large) {
            refused = Some(why);
            break;
        }
    }
    assert!(refused.unwrap().contains("would exceed"));
    let routes = state.routes(ROUTES_WHEN_CONNECTED);
    assert!(routes.len() <= MOST_BYTES, "{}", routes.len());
    assert!(routes.len() > MOST_BYTES - 128 * 1024, "{}", routes.len());
}

#[test]
fn metrics_count_of_the_room_that_all_declarations_have() {
    let state = &mut state();
    let declare = |state: &mut State| {
        let client = Client::connect(state, "A");
        let mut large = declaration("A", "h", "1");
        let metrics = large.metrics_autodiscovery.get_or_insert_default();
        metrics.labels.insert("x".repeat(900 << 10), String::new());
        state.ready(client.id, large)
    };
    for _ in 0..4 {
        declare(state).unwrap();
    }
    assert!(declare(state).unwrap_err().contains("would exceed"));
}

#[test]
fn behind_the_last_version_a_configuration_is_refused_and_the_last_one_stays() {
    let mut kept = Kept::default();
    let mut stored = StoredModule::default();
    let last = StoredConfig::new(u32::MAX, "1", SystemTime::now());
    stored.configs.push_back(last);
    kept.modules.insert("a".to_owned(), stored);
    let mut state = State::new(Limits::default(), Box::new(InMemory), kept);
    let refused = state.set("a", "2", None).unwrap_err();
    assert_eq!(refused.kind(), sd_core::ErrorKind::Unavailable);
    let configs = state.configs("a").unwrap();
    let configs = configs
        .iter()
        .map(|config| (config.version(), config.data()));
    assert_eq!(configs.collect::<Vec<_>>(), [(u32::MAX, "1")]);
    state.delete_module("a").unwrap();
    assert_eq!(state.set("a", "2", None).unwrap(), 1);
}

#[test]
fn a_configuration_that_its_schema_does_not_allow_is_refused_unless_it_is_forced() {
    let state = &mut state();
    let client = Client::connect(state, "A");
    let sent = |schema: &str| {
        let sent = format!(
            r#"{{"version":"1.2","schema":{schema},"config":{{"workers":"a default is taken as it is"}}}}"#
        );
        serde_json::from_str(&sent).unwrap()
    };
    let schema = r#"{"type":"object","properties":{"workers":{"type":"integer"}}}"#;
    state.introduce(client.id, &sent(schema)).unwrap();
    client.got();
    let refused = state
        .set("A", r#"{"workers":"hunter2"}"#, None)
        .unwrap_err();
    assert_eq!(refused.kind(), sd_core::ErrorKind::InvalidInput);
    let report = refused.report().to_string();
    assert!(
        report.contains("workers is a string, where the schema wants integer (of version 1.2"),
        "{report}"
    );
    assert!(!report.contains("hunter2"), "{report}");
    assert!(client.got().is_empty());
    assert_eq!(state.configs("A").unwrap().len(), 1);

    // What counts is what the module gets.
    state.set_variable("workers", Variable::text("7")).unwrap();
    let variable = r#"{"workers":"_ToInt(_Var(workers))"}"#;
    state.set("A", variable, None).unwrap();
    assert_eq!(client.got()[0].1, json!({"workers": 7}));

    // No secret is told, also where it is the name of what does not fit.
    let closed = r#"{"additionalProperties":false}"#;
    let other = Client::connect(state, "B");
    state.introduce(other.id, &sent(closed)).unwrap();
    state
        .set_variable("name", Variable::secret("sesame"))
        .unwrap();
    let named = state.set("B", r#"{"_Var(name)":1}"#, None).unwrap_err();
    let report = named.report().to_string();
    assert!(
        report.contains("a field whose name holds a secret is no field of the schema"),
        "{report}"
    );
    assert!(!report.contains("sesame"), "{report}");

    let forced = r#"{"workers":"all"}"#;
    let version = state.set_config("A", forced, Some(2), Author::OperatorByForce);
    assert_eq!(version.unwrap(), 3);
    assert_eq!(client.got()[0].1, json!({"workers": "all"}));

    state
        .introduce(client.id, &sent(r#"{"$ref":"http://h/"}"#))
        .unwrap();
    let unusable = state.set("A", "{}", None).unwrap_err().report().to_string();
    assert!(
        unusable.contains("the schema cannot be used: it refers to another document"),
        "{unusable}"
    );
    // Nothing is known of what the module wants.
    for schema in ["null", "true"] {
        state.introduce(client.id, &sent(schema)).unwrap();
        state.set("A", &format!("[{schema}]"), None).unwrap();
    }
}

#[test]
fn a_variable_with_which_a_configuration_would_be_too_large_is_refused_and_nothing_changes() {
    let state = &mut state();
    let client = Client::connect(state, "A");
    state.set_variable("v", Variable::text("small")).unwrap();
    state
        .introduce(client.id, &sent(r#"["_Var(v)","_Var(v)"]"#))
        .unwrap();
    client.got();
    let large = Variable::text("x".repeat(MOST_DATA_BYTES / 2));
    let refused = state.set_variable("v", large).unwrap_err();
    assert_eq!(refused.kind(), sd_core::ErrorKind::InvalidInput);
    let report = refused.report().to_string();
    assert!(
        report.contains("the configuration of A: it has more than"),
        "{report}"
    );
    assert!(client.got().is_empty());
    state.resend_config("A").unwrap();
    assert_eq!(client.got()[0].1, json!(["small", "small"]));
}

#[test]
fn a_list_and_a_configuration_are_made_once_for_all_who_are_told_them() {
    let state = &mut state();
    let _module = Client::ready(state, "A", "10.0.0.1");
    let told = |state: &mut State| {
        let client = Client::connect(state, "B");
        let wanted = requirements(&["A"], true);
        state.require(client.id, &wanted).unwrap();
        state.introduce(client.id, &sent(r#"{"large":1}"#)).unwrap();
        let sent: Vec<_> = std::iter::from_fn(|| client.outbox.take()).collect();
        (client, sent)
    };
    let places = |sent: &[bytes::Bytes]| sent.iter().map(|one| one.as_ptr()).collect::<Vec<_>>();
    // The list of a module is kept from the second who follows it on.
    let _first = told(state);
    let (_second, second) = told(state);
    let (_third, third) = told(state);
    assert_eq!((second.len(), places(&second)), (3, places(&third)));
    let _other = Client::ready(state, "A", "10.0.0.2");
    state.set("B", r#"{"large":2}"#, None).unwrap();
    let (fourth, sent) = told(state);
    assert!(
        sent.iter().zip(&third).all(|(new, old)| new != old),
        "{sent:?}"
    );
    state.disconnect(fourth.id);
    state.set_variable("v", Variable::text("1")).unwrap();
    state.set("B", r#"["_Var(v)"]"#, None).unwrap();
    let (_fifth, before) = told(state);
    state.set_variable("v", Variable::text("2")).unwrap();
    let (_sixth, after) = told(state);
    assert_ne!(before[2], after[2]);
}

#[test]
fn what_is_made_for_many_modules_takes_no_more_room_than_there_is_and_each_gets_its_own() {
    const BYTES: usize = 1 << 20;
    let state = &mut state();
    let large = Variable::text("x".repeat(BYTES));
    state.set_variable("v", large).unwrap();
    let clients: Vec<Client> = (0..40)
        .map(|nth| {
            let client = Client::connect(state, &format!("m{nth}"));
            state.introduce(client.id, &sent(r#""_Var(v)""#)).unwrap();
            let told = client.outbox.take().unwrap();
            assert!(told.len() > BYTES);
            client
        })
        .collect();
    let kept = state.rendered.bytes();
    assert!((30 * BYTES..=32 * BYTES).contains(&kept), "{kept}");
    for client in clients {
        state.disconnect(client.id);
    }
    assert_eq!(state.rendered.bytes(), 0);
}

#[test]
fn a_name_that_is_a_step_of_a_path_is_none_of_a_module() {
    let state = &mut state();
    for name in [".", "..", ""] {
        let refused = state.connect(name, Outbox::default());
        assert!(refused.is_err(), "{name}");
        state.set(name, "{}", None).unwrap_err();
    }
    state.set("...", "{}", None).unwrap();
}
