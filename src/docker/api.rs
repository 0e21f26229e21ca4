//! Requests in the negotiated version of the API.
//!
//! In: an [`Http`] and the [`Negotiated`] properties, which all `Api`s of one daemon share. Out: decoded responses.
//! Called by [`super::Docker`] for logs and events, and by [`super::pool`], where each client has an `Api` of its own.

use std::sync::{Arc, PoisonError, RwLock};

use hyper::Response;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;

use super::http::Http;
use super::http::bounded_body::{self, ArraySplitter, ListSyntaxError, MemoryBudget, Weigh};
use super::negotiation::{Negotiated, negotiate};
use super::version::Version;
use super::{ApiOperation, Error};

/// Sends versioned requests to one daemon.
pub(super) struct Api {
    pub(super) http: Http,
    negotiated: Arc<RwLock<Negotiated>>,
}

impl Api {
    /// The first `Api` for a daemon. Further ones are created with [`Api::sibling`].
    pub(super) fn new(http: Http, pinned: Option<Version>) -> Api {
        Api { http, negotiated: Arc::new(RwLock::new(Negotiated::initial(pinned))) }
    }

    /// Another `Api` for the same daemon, which keeps at most one connection.
    pub(super) fn sibling(&self) -> Api {
        Api { http: self.http.sibling(), negotiated: Arc::clone(&self.negotiated) }
    }

    /// Negotiates the version, for all siblings.
    pub(super) async fn negotiate(&self, pinned: Option<Version>) -> Result<(), Error> {
        let negotiated = negotiate(&self.http, pinned).await?;
        *self.negotiated.write().unwrap_or_else(PoisonError::into_inner) = negotiated;
        Ok(())
    }

    pub(super) fn negotiated(&self) -> Negotiated {
        *self.negotiated.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn ping(&self) -> Result<(), Error> {
        let response = match self.get("/_ping", None).await {
            // A socket proxy may forbid /_ping and allow /version.
            Err(error) if error.is_refusal() => self.get("/version", None).await.map_err(|_| error)?,
            response => response?,
        };
        self.http.read_short(response.into_body(), ApiOperation::Ping).await.map(drop)
    }

    fn versioned(&self, path: &str) -> String {
        format!("/v{}{path}", self.negotiated().spoken)
    }

    /// Like [`Http::get`], with the API version in the path.
    pub(super) async fn get(&self, path: &str, id: Option<&str>) -> Result<Response<Incoming>, Error> {
        self.http.get(&self.versioned(path), id).await
    }

    /// Requests and decodes a response that is one object of at most [`bounded_body::MAX_ENTRY`] bytes.
    pub(super) async fn get_object<T: DeserializeOwned>(
        &self,
        operation: ApiOperation,
        path: &str,
    ) -> Result<T, Error> {
        let body = self.get(path, None).await?.into_body();
        let text = self.http.read(body, operation, bounded_body::MAX_ENTRY).await?;
        serde_json::from_slice(&text).map_err(|error| Error::Protocol { operation, source: error.into() })
    }

    /// Requests a list and decodes each entry as it arrives. `keep` converts an entry to what is kept of it.
    ///
    /// The list is the whole response, or the value of `key` in it.
    pub(super) async fn get_list<S: DeserializeOwned, T: Weigh>(
        &self,
        operation: ApiOperation,
        path: &str,
        key: Option<&'static str>,
        keep: impl Fn(S) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        let mut body = self.get(path, None).await?.into_body();
        let (mut entries, mut budget) = (ArraySplitter::new(key), MemoryBudget::default());
        let (mut kept, mut length) = (Vec::new(), 0);
        let mut take = |entry: &[u8]| {
            let entry = serde_json::from_slice(entry);
            let entry = keep(entry.map_err(|error| Error::Protocol { operation, source: error.into() })?)?;
            budget.add(operation, &entry)?;
            kept.push(entry);
            Ok(())
        };
        while let Some(piece) = self.http.next(&mut body).await? {
            length += piece.len();
            if length > bounded_body::MAX_LIST {
                return Err(Error::TooLarge { operation, limit: bounded_body::MAX_LIST });
            }
            entries.push(&piece, &mut take).map_err(|error: ListError| error.of(operation))?;
        }
        entries.end().map_err(|syntax| ListError::from(syntax).of(operation))?;
        Ok(kept)
    }
}

/// Why a list could not be read: its syntax is wrong, or an entry was rejected.
enum ListError {
    Syntax(ListSyntaxError),
    Entry(Error),
}

impl ListError {
    fn of(self, operation: ApiOperation) -> Error {
        match self {
            ListError::Syntax(ListSyntaxError::EntryTooLong) => {
                Error::TooLarge { operation, limit: bounded_body::MAX_ENTRY }
            }
            ListError::Syntax(syntax) => Error::Protocol { operation, source: syntax.into() },
            ListError::Entry(error) => error,
        }
    }
}

impl From<ListSyntaxError> for ListError {
    fn from(error: ListSyntaxError) -> Self {
        ListError::Syntax(error)
    }
}

impl From<Error> for ListError {
    fn from(error: Error) -> Self {
        ListError::Entry(error)
    }
}
