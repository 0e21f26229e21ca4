//! What an HTTP response means that is not a success.
//!
//! In: request, status and body. Out: an [`Error`]. Called by [`super::Http`]. The daemon puts its message into
//! `{"message":…}`; a proxy in front of it may answer anything.

use hyper::{Method, StatusCode};

use crate::docker::Error;

/// How many bytes of a message are kept. It is shown to the user, and a proxy may send a whole page.
const MAX_MESSAGE: usize = 1024;

/// The error for a response. `request` is the [`request_name`]; `id` is the container, if its logs were requested.
pub(super) fn error_response(request: &str, status: StatusCode, body: &[u8], id: Option<&str>) -> Error {
    #[derive(serde::Deserialize)]
    struct ErrorBody {
        message: String,
    }
    let message = serde_json::from_slice::<ErrorBody>(body).map(|body| body.message);
    let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok();
    let (code, request) = (status.as_u16(), request.to_owned());
    match code {
        401 | 403 | 405 | 407 => {
            let words = message.unwrap_or_else(|_| permission_hint(&request));
            return Error::Refused { request, code, words };
        }
        404 if !is_json => {
            let words = permission_hint(&request);
            return Error::Refused { request, code, words };
        }
        _ if body.trim_ascii_start().starts_with(b"<") => {
            let reason = status.canonical_reason().map(|reason| format!(" {reason}")).unwrap_or_default();
            return Error::Gateway { request, code, reason };
        }
        _ => {}
    }
    let message = message.unwrap_or_else(|_| String::from_utf8_lossy(body).into_owned()).trim().to_owned();
    status_error(code, message, id)
}

/// Method and path, without API version and query.
pub(super) fn request_name(method: &Method, path: &str) -> String {
    let path = path.split('?').next().unwrap_or_default();
    let rest = path.strip_prefix("/v").and_then(|rest| rest.find('/').map(|slash| (&rest[..slash], &rest[slash..])));
    match rest {
        Some((version, rest)) if version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') => {
            format!("{method} {rest}")
        }
        _ => format!("{method} {path}"),
    }
}

/// Which permission is missing, as the common socket proxies name it: a variable for each first component of a path.
fn permission_hint(request: &str) -> String {
    let component = request.split('/').nth(1).unwrap_or_default().trim_start_matches('_');
    format!("allow it ({}=1)", component.to_ascii_uppercase())
}

fn status_error(code: u16, mut message: String, id: Option<&str>) -> Error {
    if message.len() > MAX_MESSAGE {
        let end = (0..=MAX_MESSAGE).rev().find(|end| message.is_char_boundary(*end));
        message.truncate(end.unwrap_or(0));
        message.push_str(" ...");
    }
    let message = match StatusCode::from_u16(code).ok().and_then(|status| status.canonical_reason()) {
        Some(reason) if message.is_empty() => reason.to_owned(),
        _ => message,
    };
    match (code, id) {
        (404, _) => Error::NotFound { message },
        (409, _) => Error::Conflict { message },
        (501, Some(id)) => Error::NoLogs { id: id.to_owned(), message },
        (400, _) => version_error(&message).unwrap_or(Error::Status { code, message }),
        _ => Error::Status { code, message },
    }
}

/// Parses `client version 1.99 is too new. Maximum supported API version is 1.41`, and the same with `too old`
/// and `Minimum` (moby `api/server/middleware/version.go`).
fn version_error(message: &str) -> Option<Error> {
    let (wanted, rest) = message.strip_prefix("client version ")?.split_once(" is too ")?;
    let (_, engine) = rest.split_once("supported API version is ")?;
    let engine = engine.split([',', ' ', ';']).next()?.parse().ok()?;
    let wanted = wanted.parse().ok()?;
    if rest.starts_with("new") {
        Some(Error::TooOld { engine, wanted })
    } else {
        Some(Error::TooNew { engine, wanted })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_response_becomes_an_error_that_helps() {
        const REFUSED: &str = "the Docker Engine or a proxy in front of it refuses GET /info";
        const ANSWERED: &str = "the Docker Engine or a proxy in front of it answers GET /info with";
        for (code, body, id, message) in [
            (404, r#"{"message":"No such container: x"}"#, None, "No such container: x".to_owned()),
            (409, r#"{"message":"marked for removal"}"#, Some("x"), "marked for removal".into()),
            (
                501,
                r#"{"message":"no reading"}"#,
                Some("x"),
                "the Docker Engine cannot read the logs of x: no reading".into(),
            ),
            (501, "", None, "the Docker Engine answered 501: Not Implemented".into()),
            (500, "oh", None, "the Docker Engine answered 500: oh".into()),
            (403, r#"{"message":"plugin says no"}"#, None, format!("{REFUSED} (403): plugin says no")),
            (403, "<html>\n", None, format!("{REFUSED} (403): allow it (INFO=1)")),
            (403, "", None, format!("{REFUSED} (403): allow it (INFO=1)")),
            (404, "<html>\n", None, format!("{REFUSED} (404): allow it (INFO=1)")),
            (405, "no", None, format!("{REFUSED} (405): allow it (INFO=1)")),
            (502, " <html>\n", None, format!("{ANSWERED} 502 Bad Gateway")),
            (599, "<html>\n", None, format!("{ANSWERED} 599")),
            (400, r#"{"message":"bad filter"}"#, None, "the Docker Engine answered 400: bad filter".into()),
            (
                400,
                r#"{"message":"client version 1.99 is too new. Maximum supported API version is 1.41"}"#,
                None,
                "the Docker Engine is too old: it supports API versions up to 1.41, and 1.99 is needed".into(),
            ),
            (
                400,
                r#"{"message":"client version 1.41 is too old. Minimum supported API version is 1.44, please upgrade your client to a newer version"}"#,
                None,
                "the Docker Engine is too new: it supports API versions from 1.44 on, and 1.41 was requested".into(),
            ),
        ] {
            let status = StatusCode::from_u16(code).unwrap();
            assert_eq!(error_response("GET /info", status, body.as_bytes(), id).to_string(), message);
        }
    }

    /// The name leaves out what differs between calls, and the hint names the variable of a socket proxy.
    #[test]
    fn a_refused_request_is_named_with_its_permission() {
        for (path, name, hint) in [
            ("/_ping", "GET /_ping", "allow it (PING=1)"),
            ("/v1.41/_ping", "GET /_ping", "allow it (PING=1)"),
            ("/v1.44/containers/json?all=1", "GET /containers/json", "allow it (CONTAINERS=1)"),
            ("/v1.44/containers/4ac9/logs?tail=1", "GET /containers/4ac9/logs", "allow it (CONTAINERS=1)"),
            ("/v1.44/events?filters=%7B%7D", "GET /events", "allow it (EVENTS=1)"),
            ("/volumes", "GET /volumes", "allow it (VOLUMES=1)"),
            ("/version", "GET /version", "allow it (VERSION=1)"),
        ] {
            let request = request_name(&Method::GET, path);
            assert_eq!((request.as_str(), permission_hint(&request).as_str()), (name, hint), "{path}");
        }
    }
}
