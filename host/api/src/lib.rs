//! The HTTP door: discovery, verbs, watch, tables, filters, streams to nodes; `Failure` becomes `Status` here.
//!
//! Start at [`serve`], then `filters.rs` (what each request passes) and `verbs.rs` (what it then does).
//!
//! Does not know: how objects are stored, who may do what (it asks `auth`), what a kind's rules are. It decides nothing
//! about an object: authorization, admission and validation happen behind `client::Cluster`, for every door alike.

mod body;
mod computed;
mod discovery;
pub mod escalation;
mod filters;
pub mod gates;
mod gzip;
mod health;
mod kinds;
mod limits;
mod metrics;
mod negotiate;
mod openapi;
mod options;
mod path;
mod protobuf;
mod reject;
mod respond;
mod server;
mod signers;
mod streams;
mod tables;
pub mod tls;
mod verbs;
mod watch;
mod yaml;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use auth::token::Tokens;
use auth::{Authenticators, Rbac, audit, users};
use axum::Router;
use axum::middleware;
use axum::routing::get;
use client::Cluster;
use client::node::{NoNodes, Nodes};
use client::usage::Meter;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use health::{Check, GIT_VERSION};
pub use tables::{NameAndAge, Printer, Tables};

/// Adds lines to `/metrics`.
pub type MetricSource = Box<dyn Fn(&mut String) + Send + Sync>;

/// Everything the door needs from the house.
pub struct ApiConfig {
    pub cluster: Arc<dyn Cluster>,
    pub authenticators: Arc<Authenticators>,
    pub rbac: Arc<Rbac>,
    pub tls: ServerConfig,
    pub tables: Arc<dyn Tables>,
    pub nodes: Arc<dyn Nodes>,
    /// Tells what nodes and pods use (`metrics.k8s.io`).
    pub meter: Arc<Meter>,
    /// Asked before a connection into a pod is made (`exec`, `attach`, `portforward`).
    pub connections: Arc<dyn gates::AdmitConnection>,
    /// For OpenID discovery; without it the keys are not shown.
    pub tokens: Option<Arc<Tokens>>,
    /// Requests that never reach the registry. (What does is audited there.)
    pub audit: Arc<dyn audit::Sink>,
    /// Beside those of the server itself.
    pub checks: Vec<Check>,
    pub metric_sources: Vec<MetricSource>,
    /// Requests worked on at once: those that read and those that change something.
    pub in_flight: (usize, usize),
    /// Open watches of one user.
    pub watches_each: usize,
    /// For every request that is not a watch or a stream.
    pub request_timeout: Duration,
    /// How long running requests may take to finish after the stop.
    pub farewell: Duration,
}

impl ApiConfig {
    /// With Kubernetes' own limits (which has none for watches), and nothing that is not needed to answer.
    pub fn new(
        cluster: Arc<dyn Cluster>,
        authenticators: Arc<Authenticators>,
        rbac: Arc<Rbac>,
        tls: ServerConfig,
    ) -> Self {
        let nodes: Arc<dyn Nodes> = Arc::new(NoNodes);
        Self {
            meter: Arc::new(Meter::new(cluster.clone(), users::api_server(), nodes.clone())),
            nodes,
            cluster,
            authenticators,
            rbac,
            tls,
            tables: Arc::new(NameAndAge),
            connections: Arc::new(gates::AnyConnection),
            tokens: None,
            audit: Arc::new(audit::NoLog),
            checks: Vec::new(),
            metric_sources: Vec::new(),
            in_flight: (400, 200),
            watches_each: 5000,
            request_timeout: Duration::from_secs(60),
            farewell: Duration::from_secs(5),
        }
    }
}

/// What all handlers share.
struct App {
    cluster: Arc<dyn Cluster>,
    authenticators: Arc<Authenticators>,
    rbac: Arc<Rbac>,
    tables: Arc<dyn Tables>,
    nodes: Arc<dyn Nodes>,
    meter: Arc<Meter>,
    connections: Arc<dyn gates::AdmitConnection>,
    tokens: Option<Arc<Tokens>>,
    audit: Arc<dyn audit::Sink>,
    checks: Vec<Check>,
    metric_sources: Vec<MetricSource>,
    limits: Arc<limits::Limits>,
    request_timeout: Duration,
    kinds: kinds::Index,
    openapi: openapi::Cache,
    metrics: metrics::Metrics,
    /// Counts; starts anywhere.
    turns: AtomicU64,
    stop: CancellationToken,
}

impl App {
    fn new(config: ApiConfig, stop: CancellationToken) -> (Self, ServerConfig, Duration) {
        let seed = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .as_nanos() as u64;
        let mut checks = vec![Check {
            name: "ping",
            ready_only: false,
            holds: Box::new(|| Ok(())),
        }];
        let (rbac, stopping) = (config.rbac.clone(), stop.clone());
        checks.push(Check {
            name: "poststarthook/rbac/bootstrap-roles",
            ready_only: true,
            holds: Box::new(move || {
                if rbac.is_synced() {
                    Ok(())
                } else {
                    Err("roles are not read yet".into())
                }
            }),
        });
        checks.push(Check {
            name: "shutdown",
            ready_only: true,
            holds: Box::new(move || {
                if stopping.is_cancelled() {
                    Err("the server is stopping".into())
                } else {
                    Ok(())
                }
            }),
        });
        checks.extend(config.checks);
        let app = Self {
            cluster: config.cluster,
            authenticators: config.authenticators,
            rbac: config.rbac,
            tables: config.tables,
            nodes: config.nodes,
            meter: config.meter,
            connections: config.connections,
            tokens: config.tokens,
            audit: config.audit,
            checks,
            metric_sources: config.metric_sources,
            limits: limits::Limits::new(config.in_flight, config.watches_each),
            request_timeout: config.request_timeout,
            kinds: kinds::Index::default(),
            openapi: openapi::Cache::default(),
            metrics: metrics::Metrics::default(),
            turns: AtomicU64::new(seed),
            stop,
        };
        (app, config.tls, config.farewell)
    }

    fn served(&self) -> Arc<kinds::Served> {
        self.kinds.now(&*self.cluster)
    }

    /// A number below `end` that differs from call to call. Spreads load; nothing secret depends on it.
    fn spread(&self, end: u64) -> u64 {
        scramble(self.turns.fetch_add(1, Relaxed)) % end.max(1)
    }
}

/// A new id for a request or a token (a version 4 UUID).
fn new_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// SplitMix64's last step: neighbours become far apart.
fn scramble(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

fn router(app: Arc<App>) -> Router {
    let page = || get(health::page);
    Router::new()
        .route("/healthz", page())
        .route("/healthz/{*check}", page())
        .route("/livez", page())
        .route("/livez/{*check}", page())
        .route("/readyz", page())
        .route("/readyz/{*check}", page())
        .route("/", get(discovery::paths))
        .route("/version", get(health::version))
        .route("/version/", get(health::version))
        .route("/metrics", get(health::metrics))
        .route("/.well-known/openid-configuration", get(health::openid))
        .route("/openid/v1/jwks", get(health::openid))
        .route("/openapi/v2", get(openapi::v2))
        .route("/openapi/v3", get(openapi::v3_index))
        .route("/openapi/v3/{*group}", get(openapi::v3))
        .route("/api", get(discovery::answer))
        .route("/api/", get(discovery::answer))
        .route("/api/{version}", get(discovery::answer))
        .route("/api/{version}/", get(discovery::answer))
        .route("/apis", get(discovery::answer))
        .route("/apis/", get(discovery::answer))
        .route("/apis/{group}", get(discovery::answer))
        .route("/apis/{group}/", get(discovery::answer))
        .route("/apis/{group}/{version}", get(discovery::answer))
        .route("/apis/{group}/{version}/", get(discovery::answer))
        .fallback(verbs::answer)
        .layer(middleware::from_fn_with_state(app.clone(), filters::pass))
        .layer(middleware::from_fn_with_state(gzip::turns(), gzip::pass))
        .with_state(app)
}

/// Serves the API on `listener` until `stop`. Returns when the last connection has ended or the farewell is over.
///
/// # Errors
/// None at present: what goes wrong with one connection is logged.
pub async fn serve(listener: TcpListener, config: ApiConfig, stop: CancellationToken) -> std::io::Result<()> {
    let (app, tls, farewell) = App::new(config, stop.clone());
    server::run(listener, Arc::new(tls), router(Arc::new(app)), stop, farewell).await
}
