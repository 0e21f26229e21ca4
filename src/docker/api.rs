//! One way to the engine: requests in the version that was agreed on, and what their failures mean.
//!
//! In: an [`Http`] and the terms that all ways share. Out: answers. Called by [`super::Docker`] for logs and events, and by
//! [`super::pool`], each of whose clients has a way of its own.

use std::sync::{Arc, PoisonError, RwLock};

use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::{Method, Response, StatusCode};

use serde::de::DeserializeOwned;

use super::Error;
use super::http::Http;
use super::http::body::{self, Entries, NoList, Scale, Weigh};
use super::version::{self, Version};

/// What a ping is called in messages.
const PING: &str = "a ping";

/// See the module.
pub(super) struct Api {
    pub(super) http: Http,
    terms: Arc<RwLock<Negotiated>>,
}

/// What was agreed on with the engine.
#[derive(Clone, Copy)]
pub(super) struct Negotiated {
    pub(super) spoken: Version,
    pub(super) newest: Version,
    pub(super) is_podman: bool,
}

impl Negotiated {
    /// Before anything was agreed on.
    pub(super) fn of_nobody(pinned: Option<Version>) -> Arc<RwLock<Negotiated>> {
        let spoken = pinned.unwrap_or(version::OURS);
        Arc::new(RwLock::new(Negotiated { spoken, newest: spoken, is_podman: false }))
    }
}

impl Api {
    /// The first way; others go [`Api::beside`] it.
    pub(super) fn new(http: Http, terms: Arc<RwLock<Negotiated>>) -> Api {
        Api { http, terms }
    }

    /// Another way to the same engine, with one connection at most that is kept.
    pub(super) fn beside(&self) -> Api {
        Api { http: self.http.beside(), terms: Arc::clone(&self.terms) }
    }

    /// Agrees on a version, for all ways.
    pub(super) async fn agree(&self, pinned: Option<Version>) -> Result<(), Error> {
        let terms = negotiate(&self.http, pinned).await?;
        *self.terms.write().unwrap_or_else(PoisonError::into_inner) = terms;
        Ok(())
    }

    pub(super) fn terms(&self) -> Negotiated {
        *self.terms.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it answers.
    pub(super) async fn ping(&self) -> Result<(), Error> {
        let answer = match self.get("/_ping", None).await {
            // Who may not ask this may ask another thing.
            Err(error) if error.is_refusal() => self.get("/version", None).await.map_err(|_| error)?,
            answer => answer?,
        };
        self.http.read_short(answer.into_body(), PING).await.map(drop)
    }

    fn versioned(&self, path: &str) -> String {
        format!("/v{}{path}", self.terms().spoken)
    }

    pub(super) async fn get(&self, path: &str, id: Option<&str>) -> Result<Response<Incoming>, Error> {
        self.http.get(&self.versioned(path), id).await
    }

    /// For an answer that need not begin before there is something to say.
    pub(super) async fn get_patiently(&self, path: &str) -> Result<Response<Incoming>, Error> {
        self.http.get_patiently(&self.versioned(path)).await
    }

    /// The one object that an answer is.
    pub(super) async fn object<T: DeserializeOwned>(&self, what: &'static str, path: &str) -> Result<T, Error> {
        let answer = async {
            let body = self.get(path, None).await?.into_body();
            let text = self.http.read(body, what, body::ENTRY).await?;
            serde_json::from_slice(&text).map_err(|error| Error::Protocol { what, source: error.into() })
        };
        self.http.within(answer).await?
    }

    /// A list, of whose entries `keep` says what is kept. `key` is where in the answer it stands, unless it is the answer.
    pub(super) async fn list<S: DeserializeOwned, T: Weigh>(
        &self,
        what: &'static str,
        path: &str,
        key: Option<&'static str>,
        keep: impl Fn(S) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        let answer = async {
            let mut body = self.get(path, None).await?.into_body();
            let (mut entries, mut scale) = (Entries::new(key), Scale::default());
            let (mut kept, mut length) = (Vec::new(), 0);
            let mut take = |entry: &[u8]| {
                let entry = serde_json::from_slice(entry);
                let entry = keep(entry.map_err(|error| Error::Protocol { what, source: error.into() })?)?;
                scale.add(what, &entry)?;
                kept.push(entry);
                Ok(())
            };
            while let Some(piece) = self.http.next(&mut body).await? {
                length += piece.len();
                if length > body::LIST {
                    return Err(Error::TooLarge { what, limit: body::LIST });
                }
                entries.push(&piece, &mut take).map_err(|fault: Fault| fault.of(what))?;
            }
            entries.end().map_err(|no_list| Fault::from(no_list).of(what))?;
            Ok(kept)
        };
        self.http.within(answer).await?
    }
}

/// Why a list ends before its time.
enum Fault {
    NoList(NoList),
    Ours(Error),
}

impl Fault {
    fn of(self, what: &'static str) -> Error {
        match self {
            Fault::NoList(NoList::Long) => Error::TooLarge { what, limit: body::ENTRY },
            Fault::NoList(no_list) => Error::Protocol { what, source: no_list.into() },
            Fault::Ours(error) => error,
        }
    }
}

impl From<NoList> for Fault {
    fn from(no_list: NoList) -> Self {
        Fault::NoList(no_list)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Fault::Ours(error)
    }
}

/// Asks without a version what the engine's newest is, then whether it still takes ours: the minimum is not told here,
/// and a refusal does come with status 400.
async fn negotiate(http: &Http, pinned: Option<Version>) -> Result<Negotiated, Error> {
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
        return Ok(Negotiated { spoken: wanted, newest, is_podman });
    }
    let spoken = match http.get(&format!("/v{wanted}/_ping"), None).await {
        Err(Error::TooNew { engine, .. }) if pinned.is_none() => version::choose(newest, Some(engine))?,
        Err(error) => return Err(error),
        Ok(answer) => http.read_short(answer.into_body(), PING).await.map(|_| wanted)?,
    };
    Ok(Negotiated { spoken, newest, is_podman })
}

/// The same where nobody may ask that: this is told in more words. `None` where this may not be asked either.
async fn by_version(http: &Http, pinned: Option<Version>) -> Option<Result<Negotiated, Error>> {
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
    let told: Told = serde_json::from_slice(&http.read_short(answer.into_body(), "its version").await.ok()?).ok()?;
    let newest: Version = told.newest.parse().ok()?;
    let oldest = told.oldest.and_then(|oldest| oldest.parse().ok());
    let is_podman = told.components.iter().any(|component| component.name.starts_with("Podman"));
    let spoken = pinned.map_or_else(|| version::choose(newest, oldest), Ok);
    Some(spoken.map(|spoken| Negotiated { spoken, newest, is_podman }))
}

/// The headers of `/_ping`. Engines before 19.03 know only GET there.
async fn greet(http: &Http) -> Result<HeaderMap, Error> {
    let answer = http.send(Method::HEAD, "/_ping").await?;
    if answer.status() == StatusCode::OK {
        return Ok(answer.headers().clone());
    }
    let answer = http.get("/_ping", None).await?;
    let headers = answer.headers().clone();
    http.read_short(answer.into_body(), PING).await.map(|_| headers)
}

/// Without the header it is an engine from before it, or none at all: docker's CLI takes it for 1.24.
fn newest(headers: &HeaderMap) -> Result<Version, Error> {
    let Some(told) = headers.get("api-version") else { return Ok(version::OLDEST) };
    let told = String::from_utf8_lossy(told.as_bytes());
    let bad = || Error::Protocol { what: "its API version", source: format!("\"{told}\" is no version").into() };
    told.parse().map_err(|()| bad())
}
