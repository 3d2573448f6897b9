//! Accepts connections, speaks TLS and HTTP on them, and ends them gently.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::filters::Peer;

/// A client that opens a connection must say something within this time.
const HANDSHAKE: Duration = Duration::from_secs(10);
const HEADERS: Duration = Duration::from_secs(30);
/// HTTP/2 connections are asked for a sign of life this often, so that watches of dead clients do not pile up.
const PING: Duration = Duration::from_secs(30);
/// As Go's server: streams that one connection may hold open.
const STREAMS: u32 = 1000;

/// Serves until `stop`, then lets running requests finish for `farewell`. Watches end by themselves at `stop`.
pub(crate) async fn run(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    router: Router,
    stop: CancellationToken,
    farewell: Duration,
) -> std::io::Result<()> {
    let acceptor = TlsAcceptor::from(tls);
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(HEADERS);
    http.http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .max_send_buf_size(1 << 20);
    let http = Arc::new(http);
    let open = GracefulShutdown::new();
    loop {
        let (stream, address) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most likely: connections that end give some back.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let (acceptor, http, router, watcher) = (acceptor.clone(), http.clone(), router.clone(), open.watcher());
        tokio::spawn(async move {
            let Some((tls, peer)) = handshake(acceptor, stream, address).await else {
                return;
            };
            let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
                request.extensions_mut().insert(peer.clone());
                router.clone().oneshot(request)
            });
            let connection = http
                .serve_connection_with_upgrades(TokioIo::new(tls), service)
                .into_owned();
            if let Err(error) = watcher.watch(connection).await {
                tracing::debug!(%address, error, "a connection ended early");
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(farewell, open.shutdown()).await.is_err() {
        tracing::warn!("some connections did not end in time and are cut");
    }
    Ok(())
}

async fn handshake(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    address: SocketAddr,
) -> Option<(tokio_rustls::server::TlsStream<TcpStream>, Arc<Peer>)> {
    // Answers are small and somebody waits for each.
    let _ = stream.set_nodelay(true);
    let tls = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(tls)) => tls,
        Ok(Err(error)) => {
            tracing::debug!(%address, %error, "no TLS");
            return None;
        }
        Err(_) => return None,
    };
    // The chain was verified in the handshake; once a connection, not once a request.
    let certificate = tls
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|chain| auth::certificate::user(chain.first()?));
    let peer = Arc::new(Peer {
        address,
        certificate: certificate.map(Arc::new),
    });
    Some((tls, peer))
}
