//! Names of the calls to the Docker Engine, for metrics and messages.

use std::fmt;

/// A call to the Docker Engine API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiOperation {
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

impl ApiOperation {
    /// The value of the `operation` label in metrics.
    pub(super) fn metric_name(self) -> &'static str {
        match self {
            ApiOperation::Ping => "ping",
            ApiOperation::Info => "info",
            ApiOperation::Version => "version",
            ApiOperation::ContainerList => "container_list",
            ApiOperation::ContainerInspect => "container_inspect",
            ApiOperation::NetworkList => "network_list",
            ApiOperation::VolumeList => "volume_list",
            ApiOperation::Logs => "logs",
            ApiOperation::Events => "events",
        }
    }
}

/// As in "unexpected response to the container list".
impl fmt::Display for ApiOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ApiOperation::Ping => "the ping",
            ApiOperation::Info => "the info request",
            ApiOperation::Version => "the version request",
            ApiOperation::ContainerList => "the container list",
            ApiOperation::ContainerInspect => "the container inspection",
            ApiOperation::NetworkList => "the network list",
            ApiOperation::VolumeList => "the volume list",
            ApiOperation::Logs => "the log request",
            ApiOperation::Events => "the event request",
        })
    }
}
