//! One message: `name || ack-id [ || data ]`, as bytes without a length, a version or a checksum.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use sd_core::Printable;

/// Stands between the parts of a message.
const DELIMITER: &[u8; 2] = b"||";
/// What the name of an answer begins with.
const ACK: &[u8] = b"__ack_";
/// The largest message that either end of this protocol reads, name and ack id included.
pub(crate) const MOST_BYTES: usize = 4 * 1024 * 1024;

/// An event, or the answer to one.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) name: Bytes,
    /// 0 if no answer is wanted.
    pub(crate) ack_id: i64,
    /// No data and empty data are the same.
    pub(crate) data: Bytes,
}

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

impl Message {
    /// An event that wants no answer.
    pub(crate) fn event(name: impl Into<Bytes>, data: impl Into<Bytes>) -> Self {
        Self {
            name: name.into(),
            ack_id: 0,
            data: data.into(),
        }
    }

    /// This event, wanting an answer with this id.
    pub(crate) fn with_ack_id(mut self, ack_id: i64) -> Self {
        self.ack_id = ack_id;
        self
    }

    /// The answer to this event.
    pub(crate) fn answer(&self, data: impl Into<Bytes>) -> Self {
        let mut name = BytesMut::with_capacity(ACK.len() + self.name.len());
        name.put_slice(ACK);
        name.put_slice(&self.name);
        Self {
            name: name.freeze(),
            ack_id: self.ack_id,
            data: data.into(),
        }
    }

    /// Whether it is an answer. Its id alone says to what: the rest of the name does not count.
    pub(crate) fn is_answer(&self) -> bool {
        self.name.starts_with(ACK)
    }

    /// Whether the sender wants an answer. Negative ids do, too.
    pub(crate) fn wants_answer(&self) -> bool {
        self.ack_id != 0
    }

    /// Splits at the first two delimiters: data may hold more of them.
    ///
    /// # Errors
    /// There is no ack id, or it is no number of 64 bits.
    pub(crate) fn decode(bytes: &Bytes) -> Result<Self, Malformed> {
        let (name, rest) = split(bytes).ok_or(Malformed)?;
        let (ack_id, data) = split(&rest).unwrap_or((rest, Bytes::new()));
        let ack_id = std::str::from_utf8(&ack_id).map_err(|_| Malformed)?;
        Ok(Self {
            name,
            ack_id: ack_id.parse().map_err(|_| Malformed)?,
            data,
        })
    }

    /// As it travels. Without data there is no second delimiter.
    pub(crate) fn encode(&self) -> Bytes {
        let ack_id = self.ack_id.to_string();
        let delimiters = 2 * DELIMITER.len();
        let mut bytes =
            BytesMut::with_capacity(self.name.len() + ack_id.len() + self.data.len() + delimiters);
        bytes.put_slice(&self.name);
        bytes.put_slice(DELIMITER);
        bytes.put_slice(ack_id.as_bytes());
        if !self.data.is_empty() {
            bytes.put_slice(DELIMITER);
            bytes.put_slice(&self.data);
        }
        bytes.freeze()
    }
}

/// What stands before and after the first delimiter.
fn split(bytes: &Bytes) -> Option<(Bytes, Bytes)> {
    let at = bytes
        .windows(DELIMITER.len())
        .position(|two| two == DELIMITER)?;
    Some((bytes.slice(..at), bytes.slice(at + DELIMITER.len()..)))
}

/// Whether an event can have this name: neither would its message be split elsewhere nor taken for an answer.
pub(crate) fn is_event_name(name: &str) -> bool {
    // A bar at the end would be taken for the beginning of the delimiter.
    !name.contains("||") && !name.ends_with('|') && !name.as_bytes().starts_with(ACK)
}

/// Data is not shown: it may hold secrets.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = sd_core::brief(Printable(&String::from_utf8_lossy(&self.name)));
        f.debug_struct("Message")
            .field("name", &name)
            .field("ack_id", &self.ack_id)
            .field("bytes", &self.data.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(bytes: &'static str) -> Result<Message, Malformed> {
        Message::decode(&Bytes::from_static(bytes.as_bytes()))
    }

    fn message(name: &'static str, ack_id: i64, data: &'static str) -> Message {
        Message::event(name, data).with_ack_id(ack_id)
    }

    /// What a peer in Go made of each of these.
    #[test]
    fn bytes_mean_what_they_mean_to_a_peer_in_go() {
        for (bytes, means) in [
            ("E||1||x", message("E", 1, "x")),
            ("E||2", message("E", 2, "")),
            ("E||3||", message("E", 3, "")),
            ("E||6||a||b||c", message("E", 6, "a||b||c")),
            ("||5||x", message("", 5, "x")),
            ("E||007||x", message("E", 7, "x")),
            ("E||+8||x", message("E", 8, "x")),
            ("E||-5||x", message("E", -5, "x")),
            ("hello||0", message("hello", 0, "")),
        ] {
            assert_eq!(decode(bytes), Ok(means), "{bytes}");
        }
        for bytes in [
            "justname",
            "",
            "|",
            "E||",
            "E||x||y",
            "E||1 ||y",
            "E|||7||q",
            "E||9223372036854775808||x",
            "E||1_000||x",
        ] {
            assert_eq!(decode(bytes), Err(Malformed), "{bytes}");
        }
    }

    #[test]
    fn a_message_without_data_ends_with_its_ack_id() {
        assert_eq!(&message("hello", 0, "").encode()[..], b"hello||0");
        assert_eq!(&message("E", -5, "a||b").encode()[..], b"E||-5||a||b");
    }

    #[test]
    fn an_answer_carries_the_name_and_the_id_of_its_event() {
        let ready = message("MODULE:READY", 3, "{}");
        assert_eq!(
            &ready.answer("ok").encode()[..],
            b"__ack_MODULE:READY||3||ok"
        );
        let unknown = message("Nope", 4, "x").answer("");
        assert_eq!(&unknown.encode()[..], b"__ack_Nope||4");
        assert!(unknown.is_answer() && !ready.is_answer());
        let negative = message("E", -5, "");
        assert!(negative.wants_answer() && !message("E", 0, "").wants_answer());
        assert_eq!(&negative.answer("r").encode()[..], b"__ack_E||-5||r");
        let wrong = decode("__ack_WRONGNAME||2||answer").unwrap();
        assert!(wrong.is_answer() && wrong.ack_id == 2);
    }

    #[test]
    fn a_message_shows_no_data() {
        let shown = format!("{:?}", message("E\n", 1, "sesame"));
        assert!(shown.contains("E\\\\n") && shown.contains("bytes: 6"));
        assert!(!shown.contains("sesame"), "{shown}");
    }

    #[test]
    fn names_that_would_be_misread_are_none() {
        for (name, is_name) in [
            ("A_MODULE_CONNECTED", true),
            ("a|b_MODULE_CONNECTED", true),
            ("a||b_MODULE_CONNECTED", false),
            ("a|", false),
            ("__ack_A_MODULE_CONNECTED", false),
        ] {
            assert_eq!(is_event_name(name), is_name, "{name}");
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(name in "[^|]{0,9}", ack_id: i64, data: Vec<u8>) {
            let message = Message::event(name, data).with_ack_id(ack_id);
            prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
        }

        #[test]
        fn any_bytes_are_a_message_or_none(bytes: Vec<u8>) {
            if let Ok(message) = Message::decode(&Bytes::from(bytes)) {
                prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
            }
        }
    }
}
