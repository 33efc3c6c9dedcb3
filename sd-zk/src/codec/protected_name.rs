//! The names of protected sequential nodes as reception has them: `_c_<32 letters or digits>-<id>-<10 digits>`. Pure functions.

/// What every such name begins with.
pub(crate) const PREFIX: &str = "_c_";
pub(crate) const GUID_DIGITS: usize = 32;
const SEQUENCE_DIGITS: usize = 10;

/// What a name is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProtectedName<'a> {
    pub(crate) guid: &'a str,
    /// As it is written.
    pub(crate) id: &'a str,
    pub(crate) sequence: &'a str,
}

impl<'a> ProtectedName<'a> {
    /// `None` if reception takes no node of this name for one of its own.
    pub(crate) fn read(node: &'a str) -> Option<Self> {
        let (guid, rest) = node.strip_prefix(PREFIX)?.split_once('-')?;
        let (id, sequence) = rest.rsplit_once('-')?;
        let is_guid =
            guid.len() == GUID_DIGITS && guid.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let is_sequence =
            sequence.len() == SEQUENCE_DIGITS && sequence.bytes().all(|byte| byte.is_ascii_digit());
        (is_guid && is_sequence).then_some(Self { guid, id, sequence })
    }
}
