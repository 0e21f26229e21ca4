//! One way to the engine: requests in the version that was agreed on, and what their failures mean.
//!
//! In: an [`Http`] and the terms that all ways share. Out: answers. Called by [`super::Docker`] for logs and events, and by
//! [`super::pool`], each of whose clients has a way of its own.

use std::sync::{Arc, PoisonError, RwLock};

use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::{Method, Response, StatusCode};

use super::Error;
use super::transport::{self, Http};
use super::version::{self, Version};

/// See the module.
pub(super) struct Wire {
    pub(super) http: Http,
    terms: Arc<RwLock<Terms>>,
}

/// What was agreed on with the engine.
#[derive(Clone, Copy)]
pub(super) struct Terms {
    pub(super) spoken: Version,
    pub(super) newest: Version,
    pub(super) is_podman: bool,
}

impl Terms {
    /// Before anything was agreed on.
    pub(super) fn of_nobody(pinned: Option<Version>) -> Arc<RwLock<Terms>> {
        let spoken = pinned.unwrap_or(version::OURS);
        Arc::new(RwLock::new(Terms { spoken, newest: spoken, is_podman: false }))
    }
}

impl Wire {
    /// The first way; others go [`Wire::beside`] it.
    pub(super) fn new(http: Http, terms: Arc<RwLock<Terms>>) -> Wire {
        Wire { http, terms }
    }

    /// Another way to the same engine, with one connection at most that is kept.
    pub(super) fn beside(&self) -> Wire {
        Wire { http: self.http.beside(), terms: Arc::clone(&self.terms) }
    }

    /// Agrees on a version, for all ways.
    pub(super) async fn agree(&self, pinned: Option<Version>) -> Result<(), Error> {
        let terms = negotiate(&self.http, pinned).await?;
        *self.terms.write().unwrap_or_else(PoisonError::into_inner) = terms;
        Ok(())
    }

    pub(super) fn terms(&self) -> Terms {
        *self.terms.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it answers.
    pub(super) async fn ping(&self) -> Result<(), Error> {
        let answer = match self.get("/_ping", None).await {
            // Who may not ask this may ask another thing.
            Err(error) if error.is_refusal() => self.get("/version", None).await.map_err(|_| error)?,
            answer => answer?,
        };
        self.http.read(answer.into_body()).await.map(drop)
    }

    fn versioned(&self, path: &str) -> String {
        format!("/v{}{path}", self.terms().spoken)
    }

    pub(super) async fn get(&self, path: &str, id: Option<&str>) -> Result<Response<Incoming>, Error> {
        self.http.get(&self.versioned(path), id).await
    }

    pub(super) fn explain(&self, what: &'static str, error: bollard::errors::Error) -> Error {
        use bollard::errors::Error as Theirs;
        match error {
            Theirs::DockerResponseServerError { status_code, message } => {
                transport::refused(status_code, message.trim().to_owned(), None)
            }
            // Our transport's own error on its way through.
            Theirs::IOError { err } => match err.downcast::<Error>() {
                Ok(ours) => ours,
                Err(err) => self.http.broken(err.into()),
            },
            Theirs::HyperResponseError { err } => self.http.broken(err.into()),
            other => Error::Protocol { what, source: other.into() },
        }
    }
}

/// The client library over our transport. Its requests have no body: we only ask.
pub(super) fn typed(wire: Arc<Wire>) -> Result<bollard::Docker, bollard::errors::Error> {
    /// Of the library, in seconds: never before ours.
    const LIMIT: u64 = 24 * 60 * 60;
    let transport = move |asked: bollard::BollardRequest| {
        let wire = wire.clone();
        async move {
            let path = asked.uri().path_and_query().map_or("/", |path| path.as_str());
            let answer = wire.http.ask(asked.method().clone(), &wire.versioned(path), None).await;
            answer.map_err(|ours| std::io::Error::other(ours).into())
        }
    };
    let (address, version) = (Some("http://localhost"), bollard::API_DEFAULT_VERSION);
    bollard::Docker::connect_with_custom_transport(transport, address, LIMIT, version)
}

/// Asks without a version what the engine's newest is, then whether it still takes ours: the minimum is not told here,
/// and a refusal does come with status 400.
async fn negotiate(http: &Http, pinned: Option<Version>) -> Result<Terms, Error> {
    let headers = match greet(http).await {
        Err(error) if error.is_refusal() => return by_version(http, pinned).await.ok_or(error)?,
        headers => headers?,
    };
    let newest = newest(&headers)?;
    let is_podman = headers.contains_key("libpod-api-version");
    let wanted = match pinned {
        Some(pinned) => pinned,
        None => version::choose(newest, None)?,
    };
    if wanted == newest {
        return Ok(Terms { spoken: wanted, newest, is_podman });
    }
    let spoken = match http.get(&format!("/v{wanted}/_ping"), None).await {
        Err(Error::TooNew { engine, .. }) if pinned.is_none() => version::choose(newest, Some(engine))?,
        Err(error) => return Err(error),
        Ok(answer) => http.read(answer.into_body()).await.map(|_| wanted)?,
    };
    Ok(Terms { spoken, newest, is_podman })
}

/// The same where nobody may ask that: this is told in more words. `None` where this may not be asked either.
async fn by_version(http: &Http, pinned: Option<Version>) -> Option<Result<Terms, Error>> {
    #[derive(serde::Deserialize)]
    struct Told {
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
    let answer = http.get("/version", None).await.ok()?;
    let told: Told = serde_json::from_slice(&http.read(answer.into_body()).await.ok()?).ok()?;
    let newest: Version = told.newest.parse().ok()?;
    let oldest = told.oldest.and_then(|oldest| oldest.parse().ok());
    let is_podman = told.components.iter().any(|component| component.name.starts_with("Podman"));
    let spoken = pinned.map_or_else(|| version::choose(newest, oldest), Ok);
    Some(spoken.map(|spoken| Terms { spoken, newest, is_podman }))
}

/// The headers of `/_ping`. Engines before 19.03 know only GET there.
async fn greet(http: &Http) -> Result<HeaderMap, Error> {
    let answer = http.send(Method::HEAD, "/_ping").await?;
    if answer.status() == StatusCode::OK {
        return Ok(answer.headers().clone());
    }
    let answer = http.get("/_ping", None).await?;
    let headers = answer.headers().clone();
    http.read(answer.into_body()).await.map(|_| headers)
}

/// Without the header it is an engine from before it, or none at all: docker's CLI takes it for 1.24.
fn newest(headers: &HeaderMap) -> Result<Version, Error> {
    let Some(told) = headers.get("api-version") else { return Ok(version::OLDEST) };
    let told = String::from_utf8_lossy(told.as_bytes());
    let bad = || Error::Protocol { what: "its API version", source: format!("\"{told}\" is no version").into() };
    told.parse().map_err(|()| bad())
}
