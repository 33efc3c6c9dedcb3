//! What a module serves.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::protocol::lenient::read_as_go;

/// The key of [`EndpointDescriptor::extra`] under which gateways look for the permission of an administrator.
pub const REQUIRED_ADMIN_PERMISSION: &str = "reqAdminPerm";

/// One thing that can be called at a module. Gateways read it from the routes.
///
/// ```
/// use sd_cluster::EndpointDescriptor;
///
/// let endpoint = EndpointDescriptor::new("orders/delete")
///     .with_inner(true)
///     .with_required_admin_permission("orders_delete");
/// assert_eq!(endpoint.required_admin_permission(), Some("orders_delete"));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct EndpointDescriptor {
    /// The path or the name of the method.
    pub path: String,
    /// Whether it is for administrators and other modules. Gateways demand a session of an administrator then.
    pub inner: bool,
    /// Whether gateways demand a user's token.
    pub user_auth_required: bool,
    /// The method of HTTP. Empty stands for all of them, and for `POST` with the transport `grpc`.
    pub http_method: String,
    /// What else gateways are told.
    pub extra: Option<Map<String, Value>>,
}

read_as_go!(EndpointDescriptor {
    "path" => path,
    "inner" => inner,
    "userAuthRequired" => user_auth_required,
    "httpMethod" => http_method,
    "extra" => extra,
});

impl EndpointDescriptor {
    /// What is called at `path`, by users without a token, with any method.
    pub fn new(path: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            ..Self::default()
        }
    }

    /// Sets whether it is for administrators and other modules. Default: false.
    #[must_use]
    pub fn with_inner(mut self, inner: bool) -> Self {
        self.inner = inner;
        self
    }

    /// Sets whether gateways demand a user's token. Default: false.
    #[must_use]
    pub fn with_user_auth_required(mut self, required: bool) -> Self {
        self.user_auth_required = required;
        self
    }

    /// Sets the method of HTTP. Default: none.
    #[must_use]
    pub fn with_http_method(mut self, method: impl Into<String>) -> Self {
        self.http_method = method.into();
        self
    }

    /// Adds something that gateways are told. Default: nothing.
    #[must_use]
    pub fn with_extra(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        let extra = self.extra.get_or_insert_default();
        extra.insert(key.into(), value.into());
        self
    }

    /// Demands a permission of administrators. Gateways look at it where [`inner`](Self::inner) is set. Default: none.
    #[must_use]
    pub fn with_required_admin_permission(self, permission: impl Into<String>) -> Self {
        self.with_extra(REQUIRED_ADMIN_PERMISSION, permission.into())
    }

    /// The permission that administrators need. `None` if there is none, or what is there is no text.
    pub fn required_admin_permission(&self) -> Option<&str> {
        let extra = self.extra.as_ref()?;
        extra.get(REQUIRED_ADMIN_PERMISSION)?.as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_written_as_a_module_in_go_writes_it() {
        let endpoint = EndpointDescriptor::new("b/do")
            .with_inner(true)
            .with_required_admin_permission("perm");
        let json = r#"{"path":"b/do","inner":true,"userAuthRequired":false,"httpMethod":"","extra":{"reqAdminPerm":"perm"}}"#;
        assert_eq!(serde_json::to_string(&endpoint).unwrap(), json);
        let bare = serde_json::to_string(&EndpointDescriptor::new("p")).unwrap();
        assert!(bare.ends_with(r#""extra":null}"#), "{bare}");
    }

    #[test]
    fn a_permission_is_a_text_or_none() {
        for (json, permission) in [
            ("{}", None),
            (r#"{"extra":null}"#, None),
            (r#"{"extra":{}}"#, None),
            (r#"{"extra":{"reqAdminPerm":7}}"#, None),
            (r#"{"extra":{"reqAdminPerm":""}}"#, Some("")),
            (r#"{"Extra":{"reqAdminPerm":"p"}}"#, Some("p")),
        ] {
            let read: EndpointDescriptor = serde_json::from_str(json).unwrap();
            assert_eq!(read.required_admin_permission(), permission, "{json}");
        }
    }
}
