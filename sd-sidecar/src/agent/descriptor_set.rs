//! The few fields of a `FileDescriptorSet` that name methods. Source: `google/protobuf/descriptor.proto`, and the encoding of protocol
//! buffers.

use super::error::{AgentError, Result};

/// One method of a service.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct GrpcMethod {
    /// `/package.Service/Method`.
    pub(crate) path: String,
    /// Whether its requests or its answers are a stream.
    pub(crate) streams: bool,
}

/// The methods of every service, in the order of the set.
pub(crate) fn methods(descriptor_set: &[u8]) -> Result<Vec<GrpcMethod>> {
    let mut found = Vec::new();
    for field in Fields(descriptor_set) {
        if let (1, Value::Bytes(file)) = field? {
            of_file(file, &mut found)?;
        }
    }
    Ok(found)
}

/// `FileDescriptorProto`: the package is field 2, each service field 6.
fn of_file(file: &[u8], found: &mut Vec<GrpcMethod>) -> Result<()> {
    let mut package = "";
    let mut services = Vec::new();
    for field in Fields(file) {
        match field? {
            (2, Value::Bytes(name)) => package = text(name)?,
            (6, Value::Bytes(service)) => services.push(service),
            _ => {}
        }
    }
    for service in services {
        of_service(package, service, found)?;
    }
    Ok(())
}

/// `ServiceDescriptorProto`: the name is field 1, each method field 2.
fn of_service(package: &str, service: &[u8], found: &mut Vec<GrpcMethod>) -> Result<()> {
    let mut name = "";
    let mut methods = Vec::new();
    for field in Fields(service) {
        match field? {
            (1, Value::Bytes(bytes)) => name = text(bytes)?,
            (2, Value::Bytes(bytes)) => methods.push(method(bytes)?),
            _ => {}
        }
    }
    let dot = if package.is_empty() { "" } else { "." };
    found.extend(methods.into_iter().map(|(method, streams)| GrpcMethod {
        path: format!("/{package}{dot}{name}/{method}"),
        streams,
    }));
    Ok(())
}

/// `MethodDescriptorProto`: the name is field 1, fields 5 and 6 tell whether the client's side and the server's are streams.
fn method(bytes: &[u8]) -> Result<(&str, bool)> {
    let (mut name, mut streams) = ("", false);
    for field in Fields(bytes) {
        match field? {
            (1, Value::Bytes(bytes)) => name = text(bytes)?,
            (5 | 6, Value::Number(number)) => streams |= number != 0,
            _ => {}
        }
    }
    Ok((name, streams))
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Fixed,
}

/// The fields of a message, up to the first error.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field.ok_or_else(no_descriptor_set))
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Option<(u64, Value<'a>)> {
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Number(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            // Groups are in no descriptor.
            _ => return None,
        };
        Some((key >> 3, value))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }
}

fn text(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| no_descriptor_set())
}

fn no_descriptor_set() -> AgentError {
    AgentError::Invalid(
        "this is no FileDescriptorSet: give what protoc --descriptor_set_out wrote".to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A field whose value has a length below 128.
    fn field(number: u8, value: &[u8]) -> Vec<u8> {
        let length = u8::try_from(value.len()).unwrap();
        assert!(length < 128);
        [&[number << 3 | 2, length], value].concat()
    }

    fn set() -> Vec<u8> {
        let login = field(1, b"Login");
        let watch = [field(1, b"Watch"), vec![6 << 3, 1]].concat();
        let upload = [field(1, b"Upload"), vec![5 << 3, 1], vec![6 << 3, 0]].concat();
        let service = [
            field(1, b"Auth"),
            field(2, &login),
            field(2, &watch),
            field(2, &upload),
        ]
        .concat();
        // What is unknown, of every kind, comes between.
        let unknown = [
            vec![9 << 3, 0x80, 1],
            vec![10 << 3 | 1; 1],
            vec![0; 8],
            vec![11 << 3 | 5],
            vec![0; 4],
        ]
        .concat();
        let file = [field(6, &service), unknown, field(2, b"acme.v1")].concat();
        let bare = field(6, &[field(1, b"Bare"), field(2, &field(1, b"M"))].concat());
        [field(1, &file), field(1, &bare)].concat()
    }

    #[test]
    fn every_method_is_found_with_whether_it_streams() {
        let found: Vec<_> = methods(&set())
            .unwrap()
            .into_iter()
            .map(|m| (m.path, m.streams))
            .collect();
        let expected = [
            ("/acme.v1.Auth/Login", false),
            ("/acme.v1.Auth/Watch", true),
            ("/acme.v1.Auth/Upload", true),
            ("/Bare/M", false),
        ];
        assert_eq!(
            found,
            expected.map(|(path, streams)| (path.to_owned(), streams))
        );
        assert!(methods(&[]).unwrap().is_empty());
    }

    #[test]
    fn streams_are_listed_unless_only_unary_methods_are_asked_for() {
        let all = super::super::grpc_methods(&set()).unwrap();
        assert_eq!(
            all,
            [
                "/Bare/M",
                "/acme.v1.Auth/Login",
                "/acme.v1.Auth/Upload",
                "/acme.v1.Auth/Watch"
            ]
        );
        let unary = super::super::unary_grpc_methods(&[set(), set()].concat()).unwrap();
        assert_eq!(unary, ["/Bare/M", "/acme.v1.Auth/Login"]);
    }

    #[test]
    fn what_is_cut_or_something_else_is_an_error_and_never_a_panic() {
        let set = set();
        let cut = (1..set.len())
            .filter(|end| methods(&set[..*end]).is_err())
            .count();
        assert!(cut > set.len() / 2);
        for bytes in [
            &[0xff; 20][..],
            b"syntax = \"proto3\";",
            &[1 << 3 | 2, 0xff, 0xff, 0xff, 0xff, 0x7f],
        ] {
            assert!(methods(bytes).is_err());
        }
    }
}
