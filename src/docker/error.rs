//! What can go wrong between us and the engine, by what a caller can do about it.
//!
//! `Display` is one line about one object; the cause is in `source()`. Texts that come from the engine are kept as they
//! are: an attacker can write into them (a label, a path), so whoever prints them escapes them.

use std::error::Error as StdError;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::version::Version;

/// A cause of any type.
pub type Cause = Box<dyn StdError + Send + Sync>;

/// What can go wrong between us and the engine.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Both name an engine, and docker's CLI refuses to guess as well.
    #[error("--host and --context cannot be given together")]
    HostAndContext,
    /// Named by a flag, `DOCKER_CONTEXT` or `currentContext`, and not in the context store.
    #[error("context \"{name}\" does not exist")]
    UnknownContext {
        /// As it was given.
        name: String,
    },
    /// It is in the store and its `meta.json` cannot be used.
    #[error("context \"{name}\" cannot be read")]
    BadContext {
        /// As it was given.
        name: String,
        /// Of the file system or of the JSON.
        source: Cause,
    },
    /// An address that docker's CLI would not take either.
    #[error("invalid host \"{host}\": {reason}")]
    BadHost {
        /// As it was given.
        host: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// `DOCKER_API_VERSION` is not `1.41` or the like.
    #[error("invalid API version \"{version}\"")]
    BadVersion {
        /// As it was given.
        version: String,
    },
    /// Of `HttpHeaders` in config.json or of `DOCKER_CUSTOM_HEADERS`.
    #[error("invalid request header in {place}: {reason}")]
    BadHeader {
        /// The variable or the file.
        place: String,
        /// What is wrong with it; never the value, which may be a secret.
        reason: &'static str,
    },
    /// A proxy address that we cannot go through.
    #[error("invalid proxy \"{proxy}\": only http:// proxies are supported")]
    BadProxy {
        /// Without its password.
        proxy: String,
    },
    /// A certificate or key that cannot be opened.
    #[error("cannot read {}", path.display())]
    TlsFile {
        /// The file.
        path: PathBuf,
        /// Of the file system.
        source: io::Error,
    },
    /// A certificate or key that makes no sense.
    #[error("cannot use the TLS {what} for {endpoint}")]
    TlsMaterial {
        /// `CA certificate`, `client certificate`, `key`.
        what: &'static str,
        /// Where we wanted to connect.
        endpoint: String,
        /// Of the TLS library.
        source: Cause,
    },
    /// Nobody answers there, or the connection cannot be made.
    #[error("cannot reach the Docker engine at {endpoint}")]
    Unreachable {
        /// Where we tried.
        endpoint: String,
        /// Of the operating system, of ssh, of the proxy.
        source: Cause,
    },
    /// The socket is there and may not be opened.
    #[error("permission denied on the Docker socket at {endpoint}")]
    Forbidden {
        /// Where we tried.
        endpoint: String,
        /// Of the operating system.
        source: Cause,
    },
    /// The two sides do not agree on certificates, or one of them speaks no TLS.
    #[error("the TLS handshake with {endpoint} failed")]
    Tls {
        /// Where we tried.
        endpoint: String,
        /// Of the TLS library.
        source: Cause,
    },
    /// It lacks what we need, or what `DOCKER_API_VERSION` asks for.
    #[error("the engine speaks API {engine} at most and {wanted} is needed: it is too old")]
    TooOld {
        /// Its newest.
        engine: Version,
        /// What was to be spoken.
        wanted: Version,
    },
    /// It no longer takes what we speak, or what `DOCKER_API_VERSION` asks for.
    #[error("the engine takes API {engine} at least and {wanted} was to be spoken: it is too new")]
    TooNew {
        /// Its oldest.
        engine: Version,
        /// What was to be spoken.
        wanted: Version,
    },
    /// 404: no such container.
    #[error("{message}")]
    NotFound {
        /// The engine's words.
        message: String,
    },
    /// 409: the container is being removed, or dead.
    #[error("{message}")]
    Conflict {
        /// The engine's words.
        message: String,
    },
    /// 501: its logging driver keeps nothing that can be read.
    #[error("the engine cannot read the logs of {id}: {message}")]
    NoLogs {
        /// As it was asked for.
        id: String,
        /// The engine's words.
        message: String,
    },
    /// Any other refusal.
    #[error("the engine answered {code}: {message}")]
    Status {
        /// Of HTTP.
        code: u16,
        /// The engine's words, or those of a proxy before it.
        message: String,
    },
    /// 401, 403, 404, 405 or 407 of a call that every engine knows: somebody forbids it.
    #[error("the engine or a proxy before it refuses {request} ({code}): {words}")]
    Refused {
        /// `GET /info`
        request: String,
        /// Of HTTP.
        code: u16,
        /// The engine's own, or what permission a proxy has to give.
        words: String,
    },
    /// A page for people instead of an answer: something before the engine speaks for it.
    #[error("the engine or a proxy before it answers {request} with {code}{reason}")]
    Gateway {
        /// `GET /info`
        request: String,
        /// Of HTTP.
        code: u16,
        /// A blank and what that stands for, if it is known.
        reason: String,
    },
    /// Connected, and no answer in time.
    #[error("no answer from {endpoint} within {}s", after.as_secs_f64())]
    Timeout {
        /// Whom we asked.
        endpoint: String,
        /// How long we waited.
        after: Duration,
    },
    /// The connection ended in the middle of an answer, or before one.
    #[error("lost the connection to {endpoint}")]
    Broken {
        /// To whom.
        endpoint: String,
        /// Of HTTP or of the operating system.
        source: Cause,
    },
    /// As many logs and events are read as may be at one time.
    #[error("all {limit} places for logs and events are taken (docker.pool.max_concurrent_streams)")]
    TooManyStreams {
        /// The setting.
        limit: usize,
    },
    /// The call's time ran out before its turn came: others of our own calls were before it.
    #[error("no turn within {}s: {setting} allows no more", after.as_secs_f64())]
    NoTurn {
        /// How long it waited.
        after: Duration,
        /// Which setting bounds what goes at one time, or in one second.
        setting: &'static str,
    },
    /// An answer that is longer than any engine's should be.
    #[error("the engine's answer for {what} is too large: it may have {} MiB", *limit as f64 / f64::from(1 << 20))]
    TooLarge {
        /// What was asked for.
        what: &'static str,
        /// In bytes.
        limit: usize,
    },
    /// An answer that is not what the API promises.
    #[error("the engine's answer for {what} makes no sense")]
    Protocol {
        /// What was asked for.
        what: &'static str,
        /// Of the decoder.
        source: Cause,
    },
}

/// Whose turn it is when something fails: decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The user's: a flag, a variable or a configuration file says what cannot be.
    Usage,
    /// The engine's, or the way to it.
    Unreachable,
    /// This one call failed.
    Failed,
}

impl Error {
    /// Whose turn it is.
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
            | NoTurn { .. }
            | TooLarge { .. }
            | Protocol { .. } => Kind::Failed,
        }
    }

    /// It and its causes on one line, each said once.
    pub fn in_full(&self) -> String {
        let mut words = self.to_string();
        let mut next = self.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            if !words.ends_with(&text) {
                words = format!("{words}: {text}");
            }
            next = cause.source();
        }
        words
    }

    /// Whether it is the connection that failed, so that an engine which returns ends the trouble.
    pub fn is_of_connection(&self) -> bool {
        matches!(self, Error::Unreachable { .. } | Error::Timeout { .. } | Error::Broken { .. })
    }

    /// Whether somebody forbids this call, who may allow others.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Error::Refused { .. })
    }

    /// Whether the same call may work a little later.
    pub fn is_passing(&self) -> bool {
        match self {
            Error::Unreachable { .. } | Error::Timeout { .. } | Error::Broken { .. } => true,
            Error::TooManyStreams { .. } | Error::NoTurn { .. } => true,
            // What is not implemented will not be a little later.
            Error::Status { code, .. } | Error::Gateway { code, .. } => *code >= 500 && *code != 501 || *code == 429,
            _ => false,
        }
    }
}

/// The first cause of type `T` in the chain, looking into `io::Error`s, whose `source()` skips what they wrap.
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
