//! The three checks of a client.
//!
//! In: a client, and the way that streams go. Out: how each check went. Called by [`super::Pool`]; what follows from them is
//! said in [`super::health`].
//! They begin together and have one time limit. The ping and the listing follow each other on the client's connection,
//! which is the one that is to be checked and carries one at a time; another to ask side by side would say nothing of it,
//! and over ssh would cost a login.

use std::time::Duration;

use serde::de::IgnoredAny;
use tokio::time::{Instant, timeout_at};

use crate::model::time::Timestamp;

use super::client::Client;
use super::health::{Check, WEIGHTS};
use crate::docker::Error;
use crate::docker::api::Api;
use crate::docker::streams::EventsQuery;

/// In the order of [`WEIGHTS`].
pub(super) async fn look(client: &Client, streams: &Api, limit: Duration) -> Vec<Check> {
    let end = Instant::now() + limit;
    let check = async |name, question: &mut (dyn Future<Output = Result<(), Error>> + Send + Unpin)| {
        let begun = Instant::now();
        let answer = timeout_at(end, question).await.unwrap_or_else(|_| Err(streams.http.late(limit)));
        Check { name, ok: answer.is_ok(), latency: begun.elapsed(), error: answer.err().map(|error| error.in_full()) }
    };
    let [ping, list, events] = WEIGHTS.map(|(name, _)| name);
    let on_its_own = async {
        let ping = check(ping, &mut Box::pin(client.wire.ping())).await;
        (ping, check(list, &mut Box::pin(list_one(client))).await)
    };
    let mut read_events = Box::pin(read_no_events(streams));
    let ((ping, list), events) = tokio::join!(on_its_own, check(events, &mut read_events));
    vec![ping, list, events]
}

/// The newest container alone: a host may have thousands.
async fn list_one(client: &Client) -> Result<(), Error> {
    let path = "/containers/json?limit=1";
    client.wire.list("the container list", path, None, |_: IgnoredAny| Ok(String::new())).await.map(drop)
}

/// A stream that ends at once, whatever the engine's clock shows: of a time that is over. Podman would look through its
/// journal for that time.
async fn read_no_events(streams: &Api) -> Result<(), Error> {
    let is_podman = streams.terms().is_podman;
    let then = Some(if is_podman { Timestamp::now() } else { Timestamp(1_000_000_000) });
    let query = EventsQuery { since: then, until: then, ..EventsQuery::default() };
    let answer = streams.get(&query.path(is_podman), None).await?;
    streams.http.read_short(answer.into_body(), "events").await.map(drop)
}
