//! Calls through the pool beside the client library on its own, against the engine that docker would talk to.
//!
//! `bare` is the library over one plain HTTP connection for each caller, without version, limits or retries. Both ask the
//! same engine in turns, round after round, so that a change of the machine's mood meets both. `benches/pool.sh` starts an
//! engine for it.
#![allow(clippy::disallowed_methods, reason = "what it prints comes from itself")]

use std::error::Error;
use std::io;
use std::io::Write;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bollard::query_parameters::ListContainersOptions;
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::{Request, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use logwatch::internals::config;
use logwatch::internals::docker::{Docker, Endpoint, Environment, Flags};
use logwatch::internals::metrics;
use logwatch::internals::model::Filters;
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tower_service::Service;

const ROUNDS: usize = 40;
const CALLS: usize = 200;

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run())
}

async fn run() -> Result<(), Failure> {
    let endpoint = Endpoint::resolve(&Flags::default(), &Environment::of_process())?;
    let socket = endpoint.to_string();
    let socket = PathBuf::from(socket.strip_prefix("unix://").ok_or("only by a unix socket")?);
    let mut out = std::io::stdout().lock();
    writeln!(out, "| what | callers | bare, µs a call | pool, µs a call | more, µs | throughput of bare |")?;
    writeln!(out, "|---|---|---|---|---|---|")?;
    for (what, callers) in [("ping", 1), ("ping", 8), ("list", 1), ("list", 8)] {
        let bare = (0..callers).map(|_| bare(socket.clone())).collect::<Result<Vec<_>, _>>()?;
        let docker = pool(&endpoint, callers).await?;
        let (mut alone, mut pooled) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            let one = timed(callers, |caller| on_its_own(bare[caller].clone(), what)).await?;
            let other = timed(callers, |_| through_pool(docker.clone(), what)).await?;
            // The first opens the connections.
            if round > 0 {
                alone.push(one);
                pooled.push(other);
            }
        }
        let (alone, pooled) = (median(alone), median(pooled));
        let of_bare = alone / pooled * 100.0;
        writeln!(out, "| {what} | {callers} | {alone:.1} | {pooled:.1} | {:.1} | {of_bare:.0} % |", pooled - alone)?;
    }
    Ok(())
}

/// Microseconds a call, over all callers together.
async fn timed<A>(callers: usize, caller: impl Fn(usize) -> A) -> Result<f64, Failure>
where
    A: Future<Output = Result<(), Failure>> + Send + 'static,
{
    let begun = Instant::now();
    let mut tasks: JoinSet<_> = (0..callers).map(caller).collect();
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(begun.elapsed().as_secs_f64() * 1e6 / (callers * CALLS) as f64)
}

async fn on_its_own(bare: bollard::Docker, what: &str) -> Result<(), Failure> {
    for _ in 0..CALLS {
        match what {
            "ping" => drop(bare.ping().await?),
            _ => drop(bare.list_containers(Some(ListContainersOptions { all: true, ..Default::default() })).await?),
        }
    }
    Ok(())
}

async fn through_pool(docker: Docker, what: &str) -> Result<(), Failure> {
    for _ in 0..CALLS {
        match what {
            "ping" => docker.ping().await?,
            _ => drop(docker.list(&Filters::new()).await?),
        }
    }
    Ok(())
}

async fn pool(endpoint: &Endpoint, size: usize) -> Result<Docker, Failure> {
    let pool =
        config::PoolConfig { min_size: size, initial_size: size, max_size: size, ..config::PoolConfig::default() };
    let rate_limit = config::RateLimit { requests_per_second: 1_000_000, ..config::RateLimit::default() };
    let config = config::DockerConfig { pool, rate_limit, ..config::DockerConfig::default() };
    let metrics = metrics::PoolMetrics::new(&prometheus::Registry::new())?;
    Ok(Docker::connect_with(endpoint.clone(), &config, metrics).await?)
}

/// As [`bollard::Docker`] connects to a socket.
fn bare(socket: PathBuf) -> Result<bollard::Docker, bollard::errors::Error> {
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build(Socket(socket));
    let client = Arc::new(client);
    let transport = move |asked: bollard::BollardRequest| {
        let client = client.clone();
        async move {
            let (parts, _) = asked.into_parts();
            client
                .request(Request::from_parts(parts, Empty::new()))
                .await
                .map_err(|error| io::Error::other(error).into())
        }
    };
    bollard::Docker::connect_with_custom_transport(
        transport,
        Some("http://localhost"),
        120,
        bollard::API_DEFAULT_VERSION,
    )
}

/// Opens connections to a socket.
#[derive(Clone)]
struct Socket(PathBuf);

impl Service<Uri> for Socket {
    type Response = TokioIo<UnixStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<UnixStream>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let path = self.0.clone();
        Box::pin(async move { UnixStream::connect(path).await.map(TokioIo::new) })
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
