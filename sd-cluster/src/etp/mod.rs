//! ETP, the event protocol of isp modules, over WebSocket: for both ends of a connection.
//!
//! Nothing here logs what a message says, and tungstenite, which does at TRACE, is not given any.

pub(crate) mod acks;
pub(crate) mod budget;
pub(crate) mod connection;
pub(crate) mod ended;
pub(crate) mod frame;
pub(crate) mod frame_writer;
#[cfg_attr(
    not(any(test, feature = "server")),
    expect(dead_code, reason = "a client counts nothing")
)]
pub(crate) mod in_flight;
pub(crate) mod message;
pub(crate) mod signs;
pub(crate) mod upgrade;
