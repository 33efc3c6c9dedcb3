//! What a client of generated code sends its calls through.

use tonic::client::GrpcService;
use tonic::codegen::{Body, Bytes, StdError};

/// Anything that a generated client takes.
pub(crate) trait Transport:
    GrpcService<
        tonic::body::Body,
        Error: Into<StdError> + Send,
        Future: Send,
        ResponseBody: Body<Data = Bytes, Error: Into<StdError> + Send> + Send + 'static,
    > + Clone
    + Send
    + 'static
{
}

impl<T> Transport for T where
    T: GrpcService<
            tonic::body::Body,
            Error: Into<StdError> + Send,
            Future: Send,
            ResponseBody: Body<Data = Bytes, Error: Into<StdError> + Send> + Send + 'static,
        > + Clone
        + Send
        + 'static
{
}
