//! Messages of any form, and what they are answered with.

use sd_cluster::server::{ConfigService, Limits};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::raw::{BINARY, CLOSE, FINAL, Frame, PING, PONG, Raw, TEXT};
use crate::{service, started, until, until_gone, within};

const MOST: usize = 4 * 1024 * 1024;

/// What a server in Go answered to each of these.
#[tokio::test]
async fn an_answer_carries_the_name_and_the_id_and_what_is_malformed_gets_none() {
    let (_service, address) = service().await;
    let mut raw = Raw::connect(address, "a").await;
    for (message, answer) in [
        (&b"Nope||4||x"[..], "__ack_Nope||4"),
        (b"E||007", "__ack_E||7"),
        (b"E||+8||", "__ack_E||8"),
        (b"E||-5||x", "__ack_E||-5"),
        (b"||5||x", "__ack_||5"),
        (b"E||6||a||b||c", "__ack_E||6"),
        (b"E||9||\xff\xfe", "__ack_E||9"),
    ] {
        // None of these is answered, and none ends the connection.
        for malformed in [
            "justname",
            "E||x||y",
            "E|||7||q",
            "",
            "E||0||x",
            "__ack_E||3||late",
        ] {
            raw.text(malformed).await;
        }
        raw.text(message).await;
        assert_eq!(raw.message().await, answer);
    }
    raw.frame(FINAL | BINARY, b"E||1").await;
    assert_eq!(raw.message().await, "__ack_E||1");
    raw.frame(TEXT, b"E|").await;
    raw.frame(FINAL | PING, b"17").await;
    raw.frame(FINAL, b"|2").await;
    let pong = Frame {
        opcode: PONG,
        payload: b"17".to_vec(),
    };
    assert_eq!(raw.next().await, Some(pong));
    assert_eq!(raw.message().await, "__ack_E||2");
}

#[tokio::test]
async fn four_mebibytes_pass_and_one_byte_more_is_refused_with_a_reason() {
    let (service, address) = service().await;
    let mut raw = Raw::connect(address, "a").await;
    let mut message = b"E||1||".to_vec();
    message.resize(MOST, b'x');
    raw.text(&message).await;
    assert_eq!(raw.message().await, "__ack_E||1");
    // In two frames, of which neither is too large.
    raw.frame(TEXT, &message).await;
    raw.frame(FINAL, b"y").await;
    let close = raw.next().await.unwrap();
    assert_eq!(
        (close.opcode, &close.payload[..2]),
        (CLOSE, &[0x03, 0xf1][..])
    );
    assert_eq!(&close.payload[2..], b"read limited at 4194305 bytes");
    until_gone(&service, "a").await;
}

#[tokio::test]
async fn garbage_ends_its_own_connection_and_no_other() {
    let (service, address) = service().await;
    let mut other = Raw::connect(address, "other").await;
    other.ready("other", "10.0.0.1").await;
    // Not masked: the connection is cut, without a word, as a server in Go does.
    let mut unmasked = Raw::connect(address, "unmasked").await;
    unmasked.stream.write_all(b"\x81\x04E||1").await.unwrap();
    assert_eq!(unmasked.next().await, None);
    for garbage in [
        &b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"[..],
        b"\x83\x80\x01\x02\x03\x04",
        b"\x80\x80\x01\x02\x03\x04",
    ] {
        let mut raw = Raw::connect(address, "garbage").await;
        raw.stream.write_all(garbage).await.unwrap();
        let ended = raw.next().await;
        assert!(ended.is_none_or(|frame| frame.opcode == CLOSE));
    }
    let mut raw = Raw::connect(address, "garbage").await;
    let ended = async {
        // Fails once the service has closed.
        while raw
            .stream
            .write_all(b"\x81\x84\x00\x00\x00\x00junk")
            .await
            .is_ok()
        {
            tokio::task::yield_now().await;
        }
    };
    within("endless garbage", ended).await;
    for module in ["unmasked", "garbage"] {
        until_gone(&service, module).await;
    }
    assert_eq!(
        other.follow("other").await,
        r#"other_MODULE_CONNECTED||0||[{"ip":"10.0.0.1","port":"9"}]"#
    );
}

#[tokio::test]
async fn what_cannot_be_read_or_done_is_answered_with_why_and_harms_nothing() {
    let (service, address) = service().await;
    let mut raw = Raw::connect(address, "a").await;
    for (event, data, beginning) in [
        ("MODULE:READY", "{", "unmarshal event data: "),
        (
            "MODULE:READY",
            r#"{"moduleName":1}"#,
            "unmarshal event data: ",
        ),
        (
            "MODULE:READY",
            r#"{"moduleName":"a","address":{"ip":"h","port":1}}"#,
            "unmarshal event data: ",
        ),
        (
            "MODULE:READY",
            r#"{"moduleName":"a"}"#,
            "handle onModuleReady: ",
        ),
        (
            "MODULE:READY",
            r#"{"moduleName":"b"}"#,
            "handle onModuleReady: ",
        ),
        ("MODULE:SEND_REQUIREMENTS", "7", "unmarshal event data: "),
        (
            "MODULE:SEND_REQUIREMENTS",
            r#"{"requiredModules":["||"]}"#,
            "handle onModuleRequirements: ",
        ),
        (
            "MODULE:SEND_CONFIG_SCHEMA",
            r#"{"config":{"a":"_Var(b)"}}"#,
            "handle onModuleConfigSchema: missing variables in initial config: [b]",
        ),
        (
            "MODULE:SEND_CONFIG_SCHEMA",
            "\u{fffd}",
            "unmarshal event data: ",
        ),
    ] {
        let (before, answer) = raw.ask(event, data).await;
        assert!(answer.starts_with(beginning), "{data}: {answer}");
        assert!(
            before.is_empty() && answer.len() < 600,
            "{before:?} {answer}"
        );
    }
    raw.text(b"MODULE:SEND_CONFIG_SCHEMA||1||{\"config\":{\"a\":\"\xff\"}}")
        .await;
    assert!(raw.message().await.contains("unmarshal event data"));
    raw.ready("a", "10.0.0.1").await;
    let (_, again) = raw
        .ask(
            "MODULE:READY",
            r#"{"moduleName":"a","address":{"ip":"h","port":"1"}}"#,
        )
        .await;
    assert!(
        again.starts_with("handle onModuleReady: upsert backend in store: "),
        "{again}"
    );
    assert_eq!(service.module("a").await.unwrap().instances.len(), 1);
}

#[tokio::test]
async fn the_configuration_comes_before_its_answer_and_everything_may_be_asked_for_again() {
    let (service, address) = service().await;
    let mut raw = Raw::connect(address, "a").await;
    let sent = r#"{"version":"1","schema":{"type":"object"},"config":{ "b" : 1 }}"#;
    for _ in 0..2 {
        let (before, answer) = raw.ask("MODULE:SEND_CONFIG_SCHEMA", sent).await;
        assert_eq!(
            before,
            [r#"CONFIG:SEND_CONFIG_WHEN_CONNECTED||0||{ "b" : 1 }"#]
        );
        assert_eq!(answer, "ok");
    }
    let nothing = r#"{"requiredModules":null,"requireRoutes":true}"#;
    let (before, answer) = raw.ask("MODULE:SEND_REQUIREMENTS", nothing).await;
    assert_eq!(
        (before, &*answer),
        (
            vec!["CONFIG:SEND_ROUTES_WHEN_CONNECTED||0||[]".to_owned()],
            "ok"
        )
    );
    service.resend_config("a").await.unwrap();
    assert_eq!(
        raw.message().await,
        r#"CONFIG:SEND_CONFIG_CHANGED||0||{ "b" : 1 }"#
    );
}

#[tokio::test]
async fn a_service_that_is_full_refuses_who_comes_and_serves_who_is_there() {
    let mut limits = Limits::default();
    limits.connections = 2;
    limits.modules = 1;
    let (service, address) = started(ConfigService::builder().limits(limits)).await;
    let mut first = Raw::connect(address, "a").await;
    until(&service, "a", |module| module.connections == 1).await;
    // Another module has no room: what it asks for is answered with that.
    let mut second = Raw::connect(address, "b").await;
    let (_, answer) = second.ask("MODULE:READY", "{}").await;
    assert!(answer.contains("no room for another module"), "{answer}");
    let third = tokio::net::TcpStream::connect(address).await.unwrap();
    let mut third = Raw { stream: third };
    assert_eq!(third.next().await, None);
    first.ready("a", "10.0.0.1").await;
    drop(second);
    let joins = async {
        // The place is free once the service has seen that the connection is gone.
        loop {
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let request = crate::raw::request("?module_name=a");
            let mut answer = [0; 12];
            if stream.write_all(request.as_bytes()).await.is_ok()
                && stream.read_exact(&mut answer).await.is_ok()
            {
                return;
            }
        }
    };
    within("a place", joins).await;
}
