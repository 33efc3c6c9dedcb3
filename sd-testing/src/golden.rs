//! What a backend stores, held against files that no later version of it may change.

use sd_core::{Incarnation, Instance, InstanceId, ServiceName};

/// The lines of such a file: a name and what is stored, separated by tabs.
///
/// # Panics
/// A line has fewer parts.
pub fn lines<const N: usize>(file: &str) -> Vec<[String; N]> {
    file.lines()
        .map(|line| {
            let mut parts = line.split('\t').map(str::to_owned);
            std::array::from_fn(|_| parts.next().expect("a name and what is stored"))
        })
        .collect()
}

/// An instance of a run that is always the same.
///
/// # Panics
/// One of these is none.
pub fn instance(service: &str, id: &str, address: &str) -> Instance {
    Instance::of_run(
        ServiceName::new(service).expect("the name of a service"),
        InstanceId::new(id).expect("an id"),
        Incarnation::from_u64(0x1234_5678_0000_00ab),
        address.parse().expect("an address"),
    )
}

/// An instance with all fields, of which some are hard to write.
pub fn full_instance() -> Instance {
    instance("pkg.v1.Greeter", "[2001:db8::7]:443", "[2001:db8::7]:443")
        .with_ready(false)
        .with_version("1.2.3+build é")
        .with_zone("eu-1/a")
        .with_weight(0)
        .with_priority(7)
        .with_tag("blue")
        .with_tag("a=b,c")
        .with_metadata("", "empty key")
        .with_metadata("quote\"", "line\nbreak 😀")
}
