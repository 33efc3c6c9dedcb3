//! Ends a session of another client, as ZooKeeper does when it expires.
//!
//! ZooKeeper makes the password of a session from its id, with Java's `Random` and a constant seed. So a second client can show it, take
//! the session over and close it.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const SEED: i64 = 0xb341_5c00;
const PASSWORD_BYTES: usize = 16;
const CLOSE_SESSION: i32 = -11;

pub(crate) async fn end_session(address: &str, session: i64) {
    // Its owner may come back in between, and have taken it over again.
    while take_over_and_close(address, session).await {}
}

/// Says whether the session may still be there.
async fn take_over_and_close(address: &str, session: i64) -> bool {
    let mut server = TcpStream::connect(address).await.unwrap();
    let mut connect = Vec::new();
    connect.extend(0i32.to_be_bytes());
    connect.extend(0i64.to_be_bytes());
    connect.extend(30_000i32.to_be_bytes());
    connect.extend(session.to_be_bytes());
    connect.extend(16i32.to_be_bytes());
    connect.extend(password(session));
    server.write_all(&frame(&connect)).await.unwrap();
    let Ok(answer) = receive(&mut server).await else {
        // The session is just ending.
        return true;
    };
    let taken: [u8; 8] = answer[8..16].try_into().unwrap();
    match i64::from_be_bytes(taken) {
        0 => false,
        taken => {
            assert_eq!(taken, session);
            let close = [1i32.to_be_bytes(), CLOSE_SESSION.to_be_bytes()].concat();
            // It hangs up where the owner has taken the session back.
            if server.write_all(&frame(&close)).await.is_ok() {
                drop(receive(&mut server).await);
            }
            true
        }
    }
}

fn frame(message: &[u8]) -> Vec<u8> {
    let length = i32::try_from(message.len()).unwrap().to_be_bytes();
    [&length, message].concat()
}

async fn receive(server: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = server.read_i32().await?;
    let mut message = vec![0; usize::try_from(length).unwrap()];
    server.read_exact(&mut message).await?;
    Ok(message)
}

/// What `java.util.Random` gives for this seed.
fn password(session: i64) -> [u8; PASSWORD_BYTES] {
    const MULTIPLIER: i64 = 0x5_deec_e66d;
    const MASK: i64 = (1 << 48) - 1;
    let mut state = ((session ^ SEED) ^ MULTIPLIER) & MASK;
    let mut password = [0; PASSWORD_BYTES];
    for four in password.chunks_mut(4) {
        state = state.wrapping_mul(MULTIPLIER).wrapping_add(0xb) & MASK;
        let number = u32::try_from(state >> 16).unwrap();
        four.copy_from_slice(&number.to_le_bytes());
    }
    password
}
