//! An HTTP API for operators: what the service knows, and changing configurations and variables.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/modules` | all modules that are known |
//! | `GET /v1/modules/{name}` | one of them |
//! | `DELETE /v1/modules/{name}` | forgets one that is not connected |
//! | `GET /v1/modules/{name}/config` | its configuration, as it was written; `ETag` is its version |
//! | `PUT /v1/modules/{name}/config` | writes it, and sends it; with `If-Match: "3"` only over version 3, with `"0"` only where there is none. One that does not fit the module's schema is refused with the place, unless `?force=true` is set |
//! | `GET /v1/modules/{name}/config/versions` | all versions that are kept, with what is in them |
//! | `POST /v1/modules/{name}/config/resend` | sends it again |
//! | `GET /v1/modules/{name}/schema` | the JSON schema of its configuration |
//! | `GET /v1/routes` | what all instances have declared |
//! | `GET /v1/variables` | all variables, secret ones without their value |
//! | `PUT /v1/variables/{name}` | writes one: `{"kind":"TEXT","value":"…","description":"…"}`, or `SECRET` |
//! | `DELETE /v1/variables/{name}` | deletes one that is not used |
//! | `GET /internal/metrics/autodiscovery` | targets for Prometheus, as `http_sd_configs` reads them |
//!
//! What fails is answered with `{"error":"…"}`. Modules, routes and targets can be read from this host; everything else needs the header
//! `Authorization: Bearer <token>`. [`Admin::tls`] has them ask over HTTPS; without it nothing is encrypted.

mod access;
mod api;
mod body;
mod http_server;
mod log;

pub use self::access::Admin;
pub(super) use self::http_server::serve;
