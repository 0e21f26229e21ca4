//! What a container is to every room: who it is and how it is doing.

use std::collections::BTreeMap;

/// A container as a listing, an inspection or an event describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Without the leading slash that the API puts before it.
    pub name: String,
    /// As it was named when the container was created, `nginx:1`.
    pub image: String,
    /// All of them, Compose's included.
    pub labels: BTreeMap<String, String>,
    /// `created`, `running`, `paused`, `restarting`, `removing`, `exited` or `dead`.
    pub state: String,
    /// What its newest run ended with; `None` while it is up, before it ever was, and where nobody told.
    pub exit_code: Option<i64>,
    /// Network name to the address in it; empty when the container has none now.
    pub networks: BTreeMap<String, String>,
    /// Labels that it may have without their being among `labels`: what told of it has attributes of the same names.
    pub hidden: &'static [&'static str],
}

impl Container {
    /// The Compose project it belongs to.
    pub fn project(&self) -> Option<&str> {
        self.labels.get("com.docker.compose.project").map(String::as_str)
    }

    /// The Compose service it is an instance of.
    pub fn service(&self) -> Option<&str> {
        self.labels.get("com.docker.compose.service").map(String::as_str)
    }

    /// Whether its main process exists, so that it can still write.
    pub fn is_up(&self) -> bool {
        matches!(self.state.as_str(), "running" | "paused" | "restarting")
    }
}

/// The first twelve digits of an ID, as Docker shows it.
pub fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}
