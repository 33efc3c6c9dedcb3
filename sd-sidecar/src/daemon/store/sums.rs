//! Checksums in the state file, of its head and of each registration: a damaged byte is no other value that was meant.
//!
//! Each is the field that follows what it is the sum of: `{"owner":"a", … ,"sum":"89abcdef01234567"}`.

/// The field's name.
pub(super) const FIELD: &str = "sum";

/// The sum of a text: FNV-1a with 64 bits, <http://www.isthe.com/chongo/tech/comp/fnv/>, in hexadecimal digits. Another byte always makes
/// another sum.
pub(super) fn of(text: &[u8]) -> String {
    let mixed = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    format!("{:016x}", text.iter().fold(0xcbf2_9ce4_8422_2325, mixed))
}

/// Appends the sum of what `text` has from `begin` on: an object that is not closed yet.
pub(super) fn append(text: &mut Vec<u8>, begin: usize) {
    let field = field(text.get(begin..).unwrap_or_default());
    text.extend_from_slice(field.as_bytes());
}

/// Whether the text of an object ends with its sum.
pub(super) fn is_whole(object: &[u8]) -> bool {
    summed(object).is_some()
}

/// What an object's sum is the sum of, if its text ends with that.
pub(super) fn summed(object: &[u8]) -> Option<&[u8]> {
    let length = field(b"").len() + 1;
    let at = object.len().checked_sub(length)?;
    let (text, end) = object.split_at_checked(at)?;
    (end.strip_suffix(b"}") == Some(field(text).as_bytes())).then_some(text)
}

fn field(text: &[u8]) -> String {
    format!(",\"{FIELD}\":\"{}\"", of(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_whole_as_long_as_no_byte_of_it_is_another() {
        // As published with the algorithm.
        assert_eq!(of(b""), "cbf29ce484222325");
        assert_eq!(of(b"foobar"), "85944171f73967e8");
        let mut object = br#"[{"a":1"#.to_vec();
        append(&mut object, 1);
        object.push(b'}');
        let object = &object[1..];
        assert!(is_whole(object));
        assert_eq!(summed(object), Some(&b"{\"a\":1"[..]));
        for at in 0..object.len() {
            for bit in 0..8 {
                let mut damaged = object.to_vec();
                damaged[at] ^= 1 << bit;
                assert!(!is_whole(&damaged), "{at}");
            }
        }
        assert!(!is_whole(b"") && !is_whole(b"{}"));
    }
}
