//! Negotiates the version of the API with a daemon.
//!
//! In: the versions that the daemon supports, as it reports them. Out: [`Negotiated`], with the version that goes
//! before every path. Called by [`super::api`].
//!
//! No single version works with all daemons: 20.10 supports nothing above 1.41, 29.0 refuses everything below 1.44
//! (moby `api/common.go`, `daemon/config/config.go`). Everything this program requests exists in 1.41 and has the same
//! form up to 1.44.

use hyper::header::HeaderMap;
use hyper::{Method, StatusCode};

use super::http::Http;
use super::version::Version;
use super::{ApiOperation, Error};

/// What was negotiated with the daemon.
#[derive(Clone, Copy)]
pub(super) struct Negotiated {
    /// The version that goes before every path.
    pub(super) spoken: Version,
    /// The newest version that the daemon supports.
    pub(super) newest: Version,
    pub(super) is_podman: bool,
}

impl Negotiated {
    /// What is assumed before the first negotiation.
    pub(super) fn initial(pinned: Option<Version>) -> Negotiated {
        let spoken = pinned.unwrap_or(PREFERRED);
        Negotiated { spoken, newest: spoken, is_podman: false }
    }
}

/// The version that this program was written for, used if the daemon supports it.
const PREFERRED: Version = Version { major: 1, minor: 44 };

/// The oldest version that this program can use (Docker 1.12). Before it, events have no type and
/// filters a different form.
const OLDEST: Version = Version { major: 1, minor: 24 };

/// Chooses the version for a daemon that supports versions from `minimum`, if known, up to `newest`.
///
/// If `minimum` is above [`PREFERRED`], the newest version is used: additions to the API are harmless,
/// a refusal is not.
fn choose(newest: Version, minimum: Option<Version>) -> Result<Version, Error> {
    if newest < OLDEST {
        return Err(Error::TooOld { engine: newest, wanted: OLDEST });
    }
    if minimum.unwrap_or(newest).min(newest).major > PREFERRED.major {
        return Err(Error::TooNew { engine: newest, wanted: PREFERRED });
    }
    match minimum {
        Some(minimum) if minimum > PREFERRED => Ok(newest),
        _ => Ok(PREFERRED.min(newest)),
    }
}

/// Negotiates the version of the API.
///
/// An unversioned ping returns the newest version that the daemon supports, but not the oldest. A second, versioned
/// ping shows whether the daemon still supports ours: it refuses an old version with status 400.
pub(super) async fn negotiate(http: &Http, pinned: Option<Version>) -> Result<Negotiated, Error> {
    let headers = match ping_headers(http).await {
        Err(error) if error.is_refusal() => return negotiate_by_version(http, pinned).await.ok_or(error)?,
        headers => headers?,
    };
    let newest = newest_version(&headers)?;
    let is_podman = headers.contains_key("libpod-api-version");
    let wanted = match pinned {
        Some(pinned) => pinned,
        None => choose(newest, None)?,
    };
    if wanted == newest {
        return Ok(Negotiated { spoken: wanted, newest, is_podman });
    }
    let spoken = match http.get(&format!("/v{wanted}/_ping"), None).await {
        Err(Error::TooNew { engine, .. }) if pinned.is_none() => choose(newest, Some(engine))?,
        Err(error) => return Err(error),
        Ok(response) => http.read_short(response.into_body(), ApiOperation::Ping).await.map(|_| wanted)?,
    };
    Ok(Negotiated { spoken, newest, is_podman })
}

/// Negotiates with `GET /version`, for a proxy that forbids `/_ping`. The response contains both the newest and the
/// oldest version. `None` if `/version` is forbidden or cannot be decoded either.
async fn negotiate_by_version(http: &Http, pinned: Option<Version>) -> Option<Result<Negotiated, Error>> {
    #[derive(serde::Deserialize)]
    struct VersionAnswer {
        #[serde(rename = "ApiVersion")]
        newest: String,
        #[serde(rename = "MinAPIVersion")]
        oldest: Option<String>,
        #[serde(rename = "Components", default)]
        components: Vec<Component>,
    }
    #[derive(serde::Deserialize)]
    struct Component {
        #[serde(rename = "Name", default)]
        name: String,
    }
    let response = http.get("/version", None).await.ok()?;
    let body = http.read_short(response.into_body(), ApiOperation::Version).await.ok()?;
    let answer: VersionAnswer = serde_json::from_slice(&body).ok()?;
    let newest: Version = answer.newest.parse().ok()?;
    let oldest = answer.oldest.and_then(|oldest| oldest.parse().ok());
    let is_podman = answer.components.iter().any(|component| component.name.starts_with("Podman"));
    let spoken = pinned.map_or_else(|| choose(newest, oldest), Ok);
    Some(spoken.map(|spoken| Negotiated { spoken, newest, is_podman }))
}

/// The headers of `/_ping`. Daemons before 19.03 support only GET for it.
async fn ping_headers(http: &Http) -> Result<HeaderMap, Error> {
    let response = http.send(Method::HEAD, "/_ping").await?;
    if response.status() == StatusCode::OK {
        return Ok(response.headers().clone());
    }
    let response = http.get("/_ping", None).await?;
    let headers = response.headers().clone();
    http.read_short(response.into_body(), ApiOperation::Ping).await.map(|_| headers)
}

/// The `api-version` header. Without it the daemon is older than the header, or it is no daemon at all; docker's
/// CLI assumes 1.24 then.
fn newest_version(headers: &HeaderMap) -> Result<Version, Error> {
    let Some(header) = headers.get("api-version") else { return Ok(OLDEST) };
    let text = String::from_utf8_lossy(header.as_bytes());
    let invalid = || Error::Protocol {
        operation: ApiOperation::Ping,
        source: format!("\"{text}\" is not an API version").into(),
    };
    text.parse().map_err(|()| invalid())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    #[test]
    fn the_chosen_version_is_supported_by_the_daemon() {
        for (engine, newest, minimum, spoken) in [
            ("1.12.0", "1.24", None, "1.24"),
            ("19.03", "1.40", Some("1.12"), "1.40"),
            ("20.10", "1.41", Some("1.12"), "1.41"),
            ("24.0", "1.43", Some("1.12"), "1.43"),
            ("25.0", "1.44", Some("1.24"), "1.44"),
            ("28.5", "1.51", Some("1.24"), "1.44"),
            ("29.0", "1.52", Some("1.44"), "1.44"),
            ("29.7", "1.55", Some("1.40"), "1.44"),
            ("29 with a raised minimum", "1.53", Some("1.52"), "1.53"),
            ("unknown minimum", "1.51", None, "1.44"),
        ] {
            let chosen = choose(version(newest), minimum.map(version)).unwrap();
            assert_eq!(chosen.to_string(), spoken, "{engine}");
        }
    }

    #[test]
    fn a_daemon_that_is_too_old_or_too_new_is_an_error() {
        for (newest, message) in [
            ("1.23", "the Docker Engine is too old: it supports API versions up to 1.23, and 1.24 is needed"),
            ("0.9", "the Docker Engine is too old: it supports API versions up to 0.9, and 1.24 is needed"),
            ("2.0", "the Docker Engine is too new: it supports API versions from 2.0 on, and 1.44 was requested"),
        ] {
            assert_eq!(choose(version(newest), None).unwrap_err().to_string(), message);
        }
    }
}
