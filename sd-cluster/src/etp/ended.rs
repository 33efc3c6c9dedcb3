//! Why a connection is over.

use std::fmt;
use std::time::Duration;

use sd_backend::with_hint;
use sd_core::{Error, ErrorKind, Printable, brief};

use crate::etp::frame::{Close, FrameError};

/// Why a connection is over. It cannot be used any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The peer closed it, with a code and a reason if it gave them.
    ByPeer(Option<Close>),
    /// This end closed it on purpose.
    Here,
    /// Nothing came for this long, although pings went out.
    Silent(Duration),
    /// The peer did not take what was written for this long.
    NotTaken(Duration),
    /// The peer sent a message that is larger than this.
    TooLarge(usize),
    /// The peer broke a rule of the protocol.
    Broken(&'static str),
    /// The peer sent or took a message slowly, and others need the memory.
    NoRoom,
    /// The network failed, or the peer is gone without a word.
    Lost(String),
}

impl Ended {
    /// What to tell the peer, if it can still be told.
    pub(crate) fn close(&self) -> Option<Close> {
        match self {
            Self::ByPeer(close) => close.clone(),
            Self::Here => Some(Close::normal()),
            Self::TooLarge(most) => Some(Close::new(
                Close::TOO_LARGE,
                format!("read limited at {} bytes", most + 1),
            )),
            Self::Broken(why) => Some(Close::new(Close::PROTOCOL, *why)),
            Self::NoRoom => Some(Close::new(
                Close::TRY_AGAIN_LATER,
                "a message was under way for too long, and there is no room for more",
            )),
            Self::Silent(_) | Self::NotTaken(_) | Self::Lost(_) => None,
        }
    }

    /// Whether the peer can still be told why.
    pub(crate) fn can_be_told(&self) -> bool {
        !matches!(self, Self::Silent(_) | Self::NotTaken(_) | Self::Lost(_))
    }

    /// Whether the peer may have sent more than was read.
    pub(crate) fn leaves_unread(&self) -> bool {
        matches!(self, Self::TooLarge(_) | Self::Broken(_))
    }

    /// Whether the peer closed the connection in order.
    #[cfg(test)]
    pub(crate) fn is_normal(&self) -> bool {
        matches!(self, Self::ByPeer(Some(close)) if close.code == Close::NORMAL)
    }

    /// The error of an operation that needed the connection.
    pub(crate) fn error(&self, op: &'static str) -> Error {
        let kind = match self {
            Self::Silent(_) | Self::NotTaken(_) => ErrorKind::Timeout,
            Self::TooLarge(_) | Self::Broken(_) => ErrorKind::InvalidData,
            Self::ByPeer(_) | Self::Here | Self::NoRoom | Self::Lost(_) => ErrorKind::Unavailable,
        };
        Error::new(kind, op).with_source(with_hint(self.to_string()))
    }
}

impl From<FrameError> for Ended {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Io(error) => Self::Lost(error.to_string()),
            FrameError::TooLarge(most) => Self::TooLarge(most),
            FrameError::Protocol(rule) => Self::Broken(rule),
            FrameError::NotMasked => Self::Lost("the client did not mask a frame".to_owned()),
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ByPeer(None) => f.write_str("the other end closed the connection"),
            Self::ByPeer(Some(close)) => {
                let reason = String::from_utf8_lossy(&close.reason);
                write!(f, "the other end closed the connection: {}", close.code)?;
                if !reason.is_empty() {
                    write!(f, " {}", brief(Printable(&reason)))?;
                }
                Ok(())
            }
            Self::Here => f.write_str("the connection was closed here"),
            Self::Silent(limit) => write!(
                f,
                "nothing came for {limit:?}, not even answers to pings: the other end is gone or frozen"
            ),
            Self::NotTaken(limit) => write!(f, "the other end took nothing for {limit:?}"),
            Self::TooLarge(most) => write!(
                f,
                "the other end sent a message of more than {most} bytes, which no end of this protocol reads"
            ),
            Self::Broken(rule) => write!(f, "the other end does not speak WebSocket well: {rule}"),
            Self::NoRoom => {
                f.write_str("a message was under way for too long, and others needed the memory")
            }
            Self::Lost(why) => write!(f, "the connection is lost: {}", brief(Printable(why))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_is_repeated_and_what_went_wrong_is_told_to_the_peer() {
        let codes = |ended: Ended| ended.close().map(|close| (close.code, close.reason));
        assert_eq!(codes(Ended::Here), Some((1000, "".into())));
        assert_eq!(codes(Ended::ByPeer(None)), None);
        let away = Ended::ByPeer(Some(Close::new(1001, "bye\n")));
        assert_eq!(codes(away.clone()), Some((1001, "bye\n".into())));
        let reason = "read limited at 4194305 bytes".into();
        let large = Ended::TooLarge(crate::etp::message::MOST_BYTES);
        assert_eq!(codes(large), Some((1009, reason)));
        assert!(away.to_string().ends_with("1001 bye\\n"), "{away}");
        assert!(!away.is_normal() && Ended::ByPeer(Some(Close::normal())).is_normal());
    }
}
