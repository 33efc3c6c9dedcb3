//! The greeter that the examples serve.

use tonic::{Request, Response, Status};

use crate::greeter::{Greeter, HelloReply, HelloRequest};

/// Says hello, and which copy of the service says it.
#[derive(Clone, Debug)]
pub struct Hello {
    copy: String,
}

impl Hello {
    /// A greeter that calls itself `copy`.
    pub fn from(copy: impl Into<String>) -> Self {
        Self { copy: copy.into() }
    }
}

#[tonic::async_trait]
impl Greeter for Hello {
    async fn say_hello(
        &self,
        request: Request<HelloRequest>,
    ) -> Result<Response<HelloReply>, Status> {
        let HelloRequest { name } = request.into_inner();
        let message = format!("Hello, {name}, from {}", self.copy);
        Ok(Response::new(HelloReply { message }))
    }
}
