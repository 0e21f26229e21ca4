//! Names of the calls to the Docker Engine, for metrics and messages.

use std::fmt;

/// A call to the Docker Engine API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Ping,
    Info,
    Version,
    ContainerList,
    ContainerInspect,
    NetworkList,
    VolumeList,
    /// A log or event stream: its opening, or what is read from it.
    Logs,
    Events,
}

impl Operation {
    /// The value of the `operation` label in metrics.
    pub(super) fn metric_name(self) -> &'static str {
        match self {
            Operation::Ping => "ping",
            Operation::Info => "info",
            Operation::Version => "version",
            Operation::ContainerList => "container_list",
            Operation::ContainerInspect => "container_inspect",
            Operation::NetworkList => "network_list",
            Operation::VolumeList => "volume_list",
            Operation::Logs => "logs",
            Operation::Events => "events",
        }
    }
}

/// As in "unexpected response to the container list".
impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Operation::Ping => "the ping",
            Operation::Info => "the info request",
            Operation::Version => "the version request",
            Operation::ContainerList => "the container list",
            Operation::ContainerInspect => "the container inspection",
            Operation::NetworkList => "the network list",
            Operation::VolumeList => "the volume list",
            Operation::Logs => "the log request",
            Operation::Events => "the event request",
        })
    }
}
