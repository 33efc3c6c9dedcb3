//! The methods that a process serves, as agents want them: `/package.Service/Method`, sorted, each once.

use std::collections::BTreeSet;

use super::descriptor_set::methods;
use super::error::Result;

/// The methods of one service by their names, such as tonic's `NamedService::NAME` and those of its generated code.
pub fn methods_of(service: &str, methods: &[&str]) -> Vec<String> {
    let paths: BTreeSet<String> = methods
        .iter()
        .map(|method| format!("/{service}/{method}"))
        .collect();
    paths.into_iter().collect()
}

/// The methods of every service in a `FileDescriptorSet`, as `protoc --descriptor_set_out` or tonic-prost-build writes it. Those that
/// stream are among them.
///
/// # Errors
/// `Invalid` if it is none.
pub fn grpc_methods(descriptor_set: &[u8]) -> Result<Vec<String>> {
    let paths: BTreeSet<String> = methods(descriptor_set)?
        .into_iter()
        .map(|method| method.path)
        .collect();
    Ok(paths.into_iter().collect())
}

/// As [`grpc_methods`], without those that stream: what the reference system lists.
///
/// # Errors
/// `Invalid` if it is none.
pub fn unary_grpc_methods(descriptor_set: &[u8]) -> Result<Vec<String>> {
    let methods = methods(descriptor_set)?.into_iter();
    let unary = methods
        .filter(|method| !method.streams)
        .map(|method| method.path);
    let paths: BTreeSet<String> = unary.collect();
    Ok(paths.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_sorted_and_each_once() {
        let methods = methods_of("acme.v1.S", &["Watch", "Login", "Watch"]);
        assert_eq!(methods, ["/acme.v1.S/Login", "/acme.v1.S/Watch"]);
        assert!(methods_of("acme.v1.S", &[]).is_empty());
    }
}
