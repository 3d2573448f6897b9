//! `wasi:http/proxy`: a fresh instance for each request, on each of the container's ports.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;

use super::guest::{Data, Guest, LINGER};

/// Where a component that declares no port listens.
const DEFAULT_PORT: u16 = 8080;
/// Requests being answered at the same time; others wait in the kernel's queue.
const AT_ONCE: usize = 256;

pub(crate) struct Server {
    guest: Arc<Guest>,
    pre: ProxyPre<Data>,
    room: Semaphore,
}

type Body = UnsyncBoxBody<Bytes, wasmtime_wasi_http::Error>;

/// Takes the ports; an error says which and why.
pub(crate) async fn listen(guest: &Guest) -> Result<Vec<TcpListener>, String> {
    let declared = &guest.config.ports;
    let ports = if declared.is_empty() {
        &[DEFAULT_PORT][..]
    } else {
        declared
    };
    let mut listeners = Vec::new();
    for port in ports {
        let address = SocketAddr::new(guest.ip, *port);
        listeners.push(TcpListener::bind(address).await.map_err(|e| {
            let advice = match e.kind() {
                std::io::ErrorKind::PermissionDenied => {
                    "; ports below 1024 need root or net.ipv4.ip_unprivileged_port_start, choose a higher containerPort"
                }
                _ => "",
            };
            format!("cannot listen on {address}: {e}{advice}")
        })?);
    }
    Ok(listeners)
}

impl Server {
    pub fn new(guest: Arc<Guest>) -> Result<Arc<Self>, String> {
        let pre = guest.linker.instantiate_pre(&guest.component).and_then(ProxyPre::new);
        let pre = pre.map_err(|e| format!("{e:#}"))?;
        Ok(Arc::new(Self {
            guest,
            pre,
            room: Semaphore::new(AT_ONCE),
        }))
    }

    /// Serves until `stop`, then lingers, then finishes what it has begun.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, stop: CancellationToken) {
        let graceful = GracefulShutdown::new();
        let over = async {
            stop.cancelled().await;
            tokio::time::sleep(LINGER).await;
        };
        tokio::pin!(over);
        loop {
            let stream = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(e) => {
                        self.guest.say(&format!("cannot accept a connection: {e}"));
                        // Out of descriptors: those in use will be given back.
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                },
                () = &mut over => break,
            };
            let _ = stream.set_nodelay(true);
            let server = self.clone();
            let service = hyper::service::service_fn(move |request| {
                let server = server.clone();
                async move { Ok::<_, std::convert::Infallible>(server.answer(request).await) }
            });
            let connection = Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .into_owned();
            let watched = graceful.watch(connection);
            tokio::spawn(async move {
                // A client that goes away is its own business.
                let _ = watched.await;
            });
        }
        drop(listener);
        graceful.shutdown().await;
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let Ok(_room) = self.room.acquire().await else {
            return failed("the server is ending");
        };
        match self.call(request).await {
            Ok(response) => response.map(|body| body.boxed_unsync()),
            Err(message) => {
                self.guest.say(&format!("a request failed: {message}"));
                failed("the component failed to answer; its log says why")
            }
        }
    }

    async fn call(
        &self,
        request: Request<Incoming>,
    ) -> Result<Response<wasmtime_wasi_http::p2::body::HyperOutgoingBody>, String> {
        use wasmtime_wasi_http::WasiHttpView;
        let mut store = self.guest.store(&self.guest.args(), self.guest.log_stdio())?;
        let (send, receive) = tokio::sync::oneshot::channel();
        let mut view = store.data_mut().http();
        let request = view
            .new_incoming_request(Scheme::Http, request)
            .map_err(|e| format!("{e:#}"))?;
        let out = view.new_response_outparam(send).map_err(|e| format!("{e:#}"))?;
        let (pre, guest) = (self.pre.clone(), self.guest.clone());
        // The guest may go on after it has answered, so it runs as a task of its own.
        let task = tokio::spawn(async move {
            let work = async {
                let proxy = pre.instantiate_async(&mut store).await?;
                proxy
                    .wasi_http_incoming_handler()
                    .call_handle(&mut store, request, out)
                    .await
            };
            let outcome = guest.pulse.around(work).await;
            outcome.map_err(|e| {
                let ending = guest.ending(&e);
                format!("{}: {}", ending.reason, ending.message)
            })
        });
        match receive.await {
            Ok(Ok(response)) => {
                let guest = self.guest.clone();
                tokio::spawn(async move {
                    if let Ok(Err(message)) = task.await {
                        guest.say(&format!(
                            "the component stopped after it had begun to answer: {message}"
                        ));
                    }
                });
                Ok(response)
            }
            Ok(Err(code)) => Err(format!("the component answered with an error: {code:?}")),
            Err(_) => match task.await {
                Ok(Err(message)) => Err(message),
                Ok(Ok(())) => Err("the component returned without an answer".into()),
                Err(e) => Err(e.to_string()),
            },
        }
    }
}

fn failed(message: &'static str) -> Response<Body> {
    let body = Full::new(Bytes::from_static(message.as_bytes())).map_err(|never| match never {});
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response
}
