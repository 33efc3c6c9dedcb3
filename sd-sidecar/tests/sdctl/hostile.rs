//! Records that other programs wrote to break terminals and logs.

use serde_json::{Value, json};

use crate::running::{LIMIT, Running, command, sdctl, sdctl_json};

/// A service whose every text is hostile. Escaped, the zone is wider than any column can be formatted.
fn registry(folder: &tempfile::TempDir) -> String {
    let zone = "\u{1b}\u{9b}".repeat(5600);
    let hostile = json!({
        "id": "a\u{202e}b", "address": "unix:/run/\u{202e}x\u{200b}", "zone": zone,
        "version": "\u{1b}[2J\nforged", "metadata": {"k\u{9b}": "\u{3164}v\u{2028}"},
    });
    let services = json!({"services": {"greeter": [
        hostile,
        {"id": "plain", "address": "10.0.0.7:80", "zone": "b"},
        {"id": "path", "address": "unix:/run/\u{1b}[2J\n"},
    ]}});
    let path = folder.path().join("services.json");
    std::fs::write(&path, services.to_string()).unwrap();
    format!("file://{}", path.display())
}

fn is_printable(text: &str) -> bool {
    text.split('\n')
        .all(|line| line.chars().all(sd_core::Printable::is_printable))
}

#[tokio::test]
async fn a_field_of_any_width_and_any_character_is_shown_cut_and_escaped_and_is_whole_in_json() {
    let folder = tempfile::tempdir().unwrap();
    let registry = registry(&folder);
    let output = sdctl(&registry, &["list", "greeter"]).await;
    assert!(output.status.success(), "{output:?}");
    let list = String::from_utf8(output.stdout).unwrap();
    let mut watch = Running::start(&registry, &["watch", "greeter"]);
    let mut lines = Vec::new();
    for _ in 0..4 {
        lines.push(watch.line().await.unwrap());
    }
    for text in [list, lines.join("\n")] {
        assert!(is_printable(&text), "{text:?}");
        assert_eq!(text.lines().count(), 4, "{text}");
        assert!(text.contains("10.0.0.7:80"), "{text}");
        assert!(text.contains("…"), "{text}");
        let longest = text.lines().map(|line| line.chars().count()).max();
        assert!(longest < Some(1000), "{longest:?}");
    }

    let list = ["list", "greeter", "--json"];
    let output = sdctl(&registry, &list).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(is_printable(&text) && text.contains(r"\u009b"), "{text:?}");
    let listed = sdctl_json(&registry, &list).await;
    let zone = listed["instances"][0]["zone"].as_str().unwrap();
    assert_eq!(zone.chars().count(), 11_200);
    assert_eq!(listed["instances"][0]["id"], "a\u{202e}b");
    let mut watch = Running::start(&registry, &["watch", "greeter", "--json"]);
    let seen = watch.line().await.unwrap();
    assert!(is_printable(&seen), "{seen:?}");
    let seen: Value = serde_json::from_str(&seen).unwrap();
    assert_eq!(seen["instances"], listed["instances"]);
    assert_eq!(seen["skipped"], listed["skipped"]);
}

#[tokio::test]
async fn no_line_of_a_log_is_anothers() {
    let folder = tempfile::tempdir().unwrap();
    let registry = registry(&folder);
    let mut watch = command(&registry, &["-vv", "watch", "greeter"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines =
        tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(watch.stderr.take().unwrap()));
    // What could not be read is logged once the set is known.
    loop {
        let line = tokio::time::timeout(LIMIT, lines.next_line());
        let line = line.await.expect("a line").unwrap().unwrap();
        assert!(is_printable(&line), "{line:?}");
        assert!(line.starts_with("20"), "it begins with its time: {line:?}");
        if line.contains("entry skipped") {
            break;
        }
    }
}
