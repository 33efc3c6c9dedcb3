//! What is around replies. Clients of the first generation read `error` or nothing, those of the third and the fourth `success`, `code`
//! and `message`, so that one body has both.

use std::time::SystemTime;

use serde::Serialize;

use super::time::rfc3339;

/// A reply that says that something was done.
#[derive(Clone, Debug, Serialize)]
pub struct Success<'a, T> {
    #[serde(rename = "success")]
    is_done: bool,
    code: &'static str,
    message: &'static str,
    generated_at: String,
    data: &'a T,
    #[serde(flatten)]
    plain: &'a T,
}

/// A reply that says why something was not done.
#[derive(Clone, Debug, Serialize)]
pub struct Failure<'a> {
    success: bool,
    code: &'a str,
    message: &'a str,
    error: &'a str,
    generated_at: String,
}

/// The envelope of what was done. The fields of `data`, which is an object, are beside it as well.
pub fn success<T: Serialize>(data: &T, at: SystemTime) -> Success<'_, T> {
    Success {
        is_done: true,
        code: "ok",
        message: "ok",
        generated_at: rfc3339(at),
        data,
        plain: data,
    }
}

/// The envelope of an error: a stable code such as `service_not_found`, and the text.
pub fn failure<'a>(code: &'a str, message: &'a str, at: SystemTime) -> Failure<'a> {
    Failure {
        success: false,
        code,
        message,
        error: message,
        generated_at: rfc3339(at),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[derive(Serialize)]
    struct Service {
        state: &'static str,
    }

    #[test]
    fn every_generation_finds_what_it_reads() {
        let service = Service { state: "Serving" };
        let done = serde_json::to_value(success(&service, SystemTime::UNIX_EPOCH)).unwrap();
        assert_eq!(done["state"], "Serving");
        assert_eq!(done["data"]["state"], "Serving");
        assert_eq!(
            (&done["success"], &done["code"]),
            (&json!(true), &json!("ok"))
        );

        let refused = failure(
            "register_failed",
            "name is required",
            SystemTime::UNIX_EPOCH,
        );
        assert_eq!(
            serde_json::to_value(refused).unwrap(),
            json!({
                "success": false, "code": "register_failed", "message": "name is required",
                "error": "name is required", "generated_at": "1970-01-01T00:00:00Z",
            })
        );
    }
}
