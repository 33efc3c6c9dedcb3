//! The worked example of the README: a table that refuses the writes of leaders of the past.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use rusqlite::{Connection, named_params};
use sd_core::FencingToken;
use sd_core::memory::Memory;
use sd_election::{Candidate, Leadership};
use tokio::runtime::Handle;

/// One row for each thing that only a leader may write, with the token of the term that wrote it last.
const TABLE: &str = "
    CREATE TABLE report (
        id           TEXT PRIMARY KEY,
        body         TEXT NOT NULL,
        fence        INTEGER NOT NULL,
        fence_domain TEXT NOT NULL
    )";

/// Compares and writes in one statement, so that nothing comes between.
const WRITE: &str = "
    INSERT INTO report (id, body, fence, fence_domain)
    VALUES (:id, :body, :fence, :fence_domain)
    ON CONFLICT (id) DO UPDATE
        SET body = excluded.body, fence = excluded.fence
        WHERE fence_domain = excluded.fence_domain AND fence <= excluded.fence";

/// Whether the write was accepted.
fn write(database: &Connection, token: &FencingToken, body: &str) -> bool {
    let changed = database.execute(
        WRITE,
        named_params! {
            ":id": "nightly",
            ":body": body,
            // SQL's integers are signed; so are the servers' that we count with.
            ":fence": i64::try_from(token.value()).unwrap(),
            ":fence_domain": token.domain(),
        },
    );
    changed.unwrap() == 1
}

fn body(database: &Connection) -> String {
    database
        .query_row("SELECT body FROM report", [], |row| row.get(0))
        .unwrap()
}

async fn lead(memory: &Memory) -> Leadership {
    Candidate::builder(&memory.connect(), "reports/nightly")
        .on_runtime(Handle::current())
        .build()
        .unwrap()
        .campaign()
        .await
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_leader_of_the_past_writes_nothing() {
    let database = Connection::open_in_memory().unwrap();
    database.execute_batch(TABLE).unwrap();
    let memory = Memory::new();

    let first = lead(&memory).await;
    assert!(write(&database, first.token(), "by the first"));
    assert!(write(&database, first.token(), "again by the first"));
    // It is paused for longer than its lease, or so it seems to the registry.
    let paused = first.term();
    memory.operator().expire_entry(first.name(), first.id());

    let second = lead(&memory).await;
    assert!(write(&database, second.token(), "by the second"));
    assert!(!write(&database, paused.token(), "by the first, late"));
    assert_eq!(body(&database), "by the second");
}

#[tokio::test(start_paused = true)]
async fn a_leader_of_another_history_writes_nothing_until_an_operator_decides() {
    let database = Connection::open_in_memory().unwrap();
    database.execute_batch(TABLE).unwrap();
    assert!(write(
        &database,
        lead(&Memory::new()).await.token(),
        "before"
    ));

    let replaced = lead(&Memory::new()).await;
    assert!(!write(&database, replaced.token(), "after"));
    assert_eq!(body(&database), "before");

    // An operator who is sure that no leader of the old registry is alive lets the new one begin.
    let reset_fence = "UPDATE report SET fence = 0, fence_domain = ?";
    database
        .execute(reset_fence, [replaced.token().domain()])
        .unwrap();
    assert!(write(&database, replaced.token(), "after"));
}
