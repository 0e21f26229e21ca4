//! The three health checks of a client.
//!
//! In: a client, and the `Api` that streams use. Out: the result of each check. Called by [`super::Pool`];
//! [`super::health`] draws the conclusions.
//!
//! The checks begin together and have one time limit. Ping and listing run one after the other on the client's own
//! connection, which is the one to be checked and carries one request at a time. A second connection would show nothing
//! about it, and over ssh would cost a login.

use std::time::Duration;

use serde::de::IgnoredAny;
use tokio::time::{Instant, timeout_at};

use crate::model::time::Timestamp;

use super::health::{Check, WEIGHTS};
use super::pooled_client::Client;
use crate::docker::api::Api;
use crate::docker::streams::EventsQuery;
use crate::docker::{ApiOperation, Error};

/// Runs the checks within `limit`. The results have the order of [`WEIGHTS`].
pub(super) async fn run(client: &Client, streams: &Api, limit: Duration) -> Vec<Check> {
    let deadline = Instant::now() + limit;
    let check = async |name, request: &mut (dyn Future<Output = Result<(), Error>> + Send + Unpin)| {
        let start = Instant::now();
        let result = timeout_at(deadline, request).await.unwrap_or_else(|_| Err(streams.http.timed_out(limit)));
        Check { name, ok: result.is_ok(), latency: start.elapsed(), error: result.err().map(|error| error.in_full()) }
    };
    let [ping, list, events] = WEIGHTS.map(|(name, _)| name);
    let on_own_connection = async {
        let ping = check(ping, &mut Box::pin(client.api.ping())).await;
        (ping, check(list, &mut Box::pin(list_one(client))).await)
    };
    let mut read_events = Box::pin(read_no_events(streams));
    let ((ping, list), events) = tokio::join!(on_own_connection, check(events, &mut read_events));
    vec![ping, list, events]
}

/// Lists only the newest container, since a host may have thousands.
async fn list_one(client: &Client) -> Result<(), Error> {
    let path = "/containers/json?limit=1";
    client.api.get_list(ApiOperation::ContainerList, path, None, |_: IgnoredAny| Ok(String::new())).await.map(drop)
}

/// Requests events of a single moment in the distant past, so that the stream ends at once whatever the daemon's clock
/// shows. Podman would search its journal for that time, so it is asked for the current moment.
async fn read_no_events(streams: &Api) -> Result<(), Error> {
    let is_podman = streams.negotiated().is_podman;
    let moment = Some(if is_podman { Timestamp::now() } else { Timestamp(1_000_000_000) });
    let query = EventsQuery { since: moment, until: moment, ..EventsQuery::default() };
    let response = streams.get(&query.path(is_podman), None).await?;
    streams.http.read_short(response.into_body(), ApiOperation::Events).await.map(drop)
}
