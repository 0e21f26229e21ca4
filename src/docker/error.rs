//! Errors of talking to the Docker Engine, divided by what a caller can do about them.
//!
//! `Display` is one line about one object; `source()` has the cause. Text from the daemon is kept as it is. An attacker
//! can influence it (a label, a path), so whoever prints an error must escape it.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::model::error_chain;

use super::operation::ApiOperation;
use super::version::Version;

/// An underlying error of any type.
pub(crate) type Cause = Box<dyn StdError + Send + Sync>;

/// Why the Docker Engine could not be reached, or why a call to it failed.
///
/// `endpoint` is the address as docker's CLI writes it, such as `unix:///var/run/docker.sock`. `message` is the text
/// that the daemon sent.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Both name an engine. Docker's CLI refuses to guess as well.
    #[error("--host and --context cannot be given together")]
    HostAndContext,
    /// Named by an option, `DOCKER_CONTEXT` or `currentContext`, but not in the context store.
    #[error("context \"{name}\" does not exist")]
    UnknownContext { name: String },
    /// The context is in the store, but its `meta.json` cannot be read or decoded.
    #[error("context \"{name}\" cannot be read")]
    BadContext { name: String, source: Cause },
    /// An address that docker's CLI would refuse too.
    #[error("invalid host \"{host}\": {reason}")]
    BadHost {
        /// As given, but without a password.
        host: String,
        reason: &'static str,
    },
    /// `DOCKER_API_VERSION` does not have the form `1.41`.
    #[error("invalid API version \"{version}\"")]
    BadVersion { version: String },
    /// A header in `HttpHeaders` of config.json or in `DOCKER_CUSTOM_HEADERS`.
    #[error("invalid request header in {place}: {reason}")]
    BadHeader {
        /// The variable or the file.
        place: String,
        /// Never contains the header's value, which may be a secret.
        reason: &'static str,
    },
    /// A proxy with a scheme other than `http`.
    #[error("invalid proxy \"{proxy}\": only http:// proxies are supported")]
    BadProxy {
        /// The address without its password.
        proxy: String,
    },
    /// A certificate or key file that cannot be read.
    #[error("cannot read {}", path.display())]
    TlsFile { path: PathBuf, source: io::Error },
    /// A certificate or key that was read but cannot be used.
    #[error("cannot use the TLS {what} for {endpoint}")]
    TlsMaterial {
        /// `CA certificate`, `client certificate`, `key`.
        what: &'static str,
        endpoint: String,
        source: Cause,
    },
    /// No connection: nothing listens there, or the network, ssh or the proxy failed.
    #[error("cannot reach the Docker Engine at {endpoint}")]
    Unreachable { endpoint: String, source: Cause },
    /// The socket exists, but this user may not open it.
    #[error("permission denied on the Docker socket at {endpoint}")]
    Forbidden { endpoint: String, source: Cause },
    /// The two sides do not agree on certificates, or one of them does not speak TLS.
    #[error("the TLS handshake with {endpoint} failed")]
    Tls { endpoint: String, source: Cause },
    /// The daemon does not support a version that is new enough for us, or the one in `DOCKER_API_VERSION`.
    #[error("the Docker Engine is too old: it supports API versions up to {engine}, and {wanted} is needed")]
    TooOld {
        /// The newest version that it supports.
        engine: Version,
        /// The version that we need or that was configured.
        wanted: Version,
    },
    /// The daemon no longer supports our version, or the one in `DOCKER_API_VERSION`.
    #[error("the Docker Engine is too new: it supports API versions from {engine} on, and {wanted} was requested")]
    TooNew {
        /// The oldest version that it supports.
        engine: Version,
        /// The version that we use or that was configured.
        wanted: Version,
    },
    /// 404: no such container.
    #[error("{message}")]
    NotFound { message: String },
    /// 409: the container is dead or being removed.
    #[error("{message}")]
    Conflict { message: String },
    /// 501: the container's logging driver keeps nothing that can be read.
    #[error("the Docker Engine cannot read the logs of {id}: {message}")]
    NoLogs {
        /// The container as the caller named it.
        id: String,
        message: String,
    },
    /// Any other HTTP error.
    #[error("the Docker Engine answered {code}: {message}")]
    Status {
        code: u16,
        /// From the daemon, or from a proxy in front of it.
        message: String,
    },
    /// 401, 403, 404, 405 or 407 for a call that every daemon knows: something forbids it.
    #[error("the Docker Engine or a proxy in front of it refuses {request} ({code}): {words}")]
    Refused {
        /// Method and path, such as `GET /info`.
        request: String,
        code: u16,
        /// The message that came with the response, else which permission a socket proxy has to give.
        words: String,
    },
    /// An HTML page instead of an API response: something in front of the daemon answered for it.
    #[error("the Docker Engine or a proxy in front of it answers {request} with {code}{reason}")]
    Gateway {
        /// Method and path, such as `GET /info`.
        request: String,
        code: u16,
        /// A space and the standard reason phrase of the code; empty if it has none.
        reason: String,
    },
    /// Connected, but the response did not come in time.
    #[error("no answer from {endpoint} within {}s", after.as_secs_f64())]
    Timeout { endpoint: String, after: Duration },
    /// The connection ended in the middle of a response, or before it.
    #[error("lost the connection to {endpoint}")]
    Broken { endpoint: String, source: Cause },
    /// The limit of log and event streams that may be open at once is reached.
    #[error("all {limit} log and event streams are in use (docker.pool.max_concurrent_streams)")]
    TooManyStreams { limit: usize },
    /// The deadline passed while the call waited behind other calls of this process. Nothing was sent.
    #[error("timed out after {}s waiting for {limit}", after.as_secs_f64())]
    PoolTimeout { after: Duration, limit: PoolLimit },
    /// A response longer than any daemon should send.
    #[error("the response to {operation} is too large: the limit is {} MiB", *limit as f64 / f64::from(1 << 20))]
    TooLarge {
        operation: ApiOperation,
        /// Maximum size in bytes.
        limit: usize,
    },
    /// A response that does not have the form that the API promises.
    #[error("unexpected response to {operation}")]
    Protocol { operation: ApiOperation, source: Cause },
}

/// What a call waited for in the pool, with the value of the setting that limits it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolLimit {
    /// `docker.pool.max_pool_size`: how many calls may be in progress at once.
    Clients(usize),
    /// `docker.rate_limit.requests_per_second`: how many calls may start in a second.
    Rate(u32),
}

impl fmt::Display for PoolLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PoolLimit::Clients(size) => write!(f, "a free connection (docker.pool.max_pool_size is {size})"),
            PoolLimit::Rate(rate) => write!(f, "the rate limit (docker.rate_limit.requests_per_second is {rate})"),
        }
    }
}

/// Who can fix a failure. Decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The user: an option, a variable or a configuration file is wrong.
    Usage,
    /// The daemon cannot be used: it is down, unreachable, incompatible or forbidden.
    Unreachable,
    /// This call failed; others may succeed.
    Failed,
}

impl Error {
    pub fn kind(&self) -> Kind {
        use Error::*;
        match self {
            HostAndContext
            | UnknownContext { .. }
            | BadContext { .. }
            | BadHost { .. }
            | BadVersion { .. }
            | BadHeader { .. }
            | BadProxy { .. }
            | TlsFile { .. }
            | TlsMaterial { .. } => Kind::Usage,
            Unreachable { .. }
            | Forbidden { .. }
            | Tls { .. }
            | TooOld { .. }
            | TooNew { .. }
            | Timeout { .. }
            | Broken { .. }
            | Refused { .. } => Kind::Unreachable,
            NotFound { .. }
            | Conflict { .. }
            | NoLogs { .. }
            | Status { .. }
            | Gateway { .. }
            | TooManyStreams { .. }
            | PoolTimeout { .. }
            | TooLarge { .. }
            | Protocol { .. } => Kind::Failed,
        }
    }

    /// The error and its causes on one line.
    pub fn in_full(&self) -> String {
        error_chain::texts(self).join(": ")
    }

    /// Whether the connection failed, so that the failure ends when the daemon is back.
    pub fn is_of_connection(&self) -> bool {
        matches!(self, Error::Unreachable { .. } | Error::Timeout { .. } | Error::Broken { .. })
    }

    /// Whether this call is forbidden, while others may be allowed.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Error::Refused { .. })
    }

    /// Whether the same call may succeed a little later.
    pub fn is_temporary(&self) -> bool {
        match self {
            Error::Unreachable { .. } | Error::Timeout { .. } | Error::Broken { .. } => true,
            Error::TooManyStreams { .. } | Error::PoolTimeout { .. } => true,
            // 501: what is not implemented now will not be implemented a little later.
            Error::Status { code, .. } | Error::Gateway { code, .. } => *code >= 500 && *code != 501 || *code == 429,
            _ => false,
        }
    }
}

/// The first error of type `T` in the chain of causes. Looks into each `io::Error`, because its `source()` skips the
/// error that it wraps.
pub(super) fn find<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = wrapped.map(|e| e as &(dyn StdError + 'static)).or_else(|| error.source());
    }
    None
}
