//! Probes and hooks: one action, done once or every period. Counting outcomes is `step`'s work.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use client::tls;
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::pod::spec::{Action, ContainerSpec, Grpc, HttpGet, Probe};
use crate::pod::step::{Happened, ProbeKind};
use crate::runtime::Runtime;

/// The container that is probed.
#[derive(Clone)]
pub(crate) struct Probed {
    pub container: ContainerSpec,
    pub id: String,
    /// The pod's address.
    pub ip: String,
    pub runtime: Arc<dyn Runtime>,
}

/// Probes until nobody listens any more.
pub(crate) async fn repeat(probed: Probed, kind: ProbeKind, probe: Probe, send: mpsc::Sender<Happened>) {
    let period = Duration::from_secs(probe.period_seconds.max(1));
    tokio::time::sleep(Duration::from_secs(probe.initial_delay_seconds)).await;
    let mut told: Option<bool> = None;
    let mut alike = 0;
    loop {
        let begun = tokio::time::Instant::now();
        let outcome = once(
            &probed,
            &probe.action,
            Duration::from_secs(probe.timeout_seconds.max(1)),
        )
        .await;
        let success = outcome.is_ok();
        alike = if told == Some(success) { alike + 1 } else { 1 };
        told = Some(success);
        // A success that changes nothing wakes nobody.
        if !success || alike <= probe.success_threshold {
            let message = outcome.err().unwrap_or_default();
            let (container, id) = (probed.container.name.clone(), probed.id.clone());
            if send
                .send(Happened::Probed {
                    container,
                    id,
                    kind,
                    success,
                    message,
                })
                .await
                .is_err()
            {
                return;
            }
        }
        // A pod that is not yet ready is looked at more often in its first moments: probing costs less than waiting.
        let soon = !success && alike < 10 && kind != ProbeKind::Liveness && probe.failure_threshold > 1;
        let pause = if soon && kind == ProbeKind::Readiness {
            period.min(Duration::from_secs(1))
        } else {
            period
        };
        tokio::time::sleep_until(begun + pause).await;
    }
}

/// The error is what stands after `… probe failed: `.
pub(crate) async fn once(probed: &Probed, action: &Action, timeout: Duration) -> Result<(), String> {
    if let Some(exec) = &action.exec {
        let done = probed.runtime.exec_sync(&probed.id, &exec.command, timeout).await;
        let output = done.map_err(|failure| format!("command {:?} failed: {failure}", exec.command))?;
        if output.code == 0 {
            return Ok(());
        }
        let text = [output.stdout, output.stderr].concat();
        return Err(String::from_utf8_lossy(&text).into_owned());
    }
    if let Some(sleep) = &action.sleep {
        tokio::time::sleep(Duration::from_secs(sleep.seconds)).await;
        return Ok(());
    }
    let work = async {
        if let Some(get) = &action.http_get {
            http(probed, get).await
        } else if let Some(tcp) = &action.tcp_socket {
            let host = if tcp.host.is_empty() { &probed.ip } else { &tcp.host };
            connect(host, port(probed, &tcp.port)?).await.map(drop)
        } else if let Some(rpc) = &action.grpc {
            grpc(probed, rpc).await
        } else {
            Ok(())
        }
    };
    match tokio::time::timeout(timeout, work).await {
        Ok(outcome) => outcome,
        Err(_) => Err("context deadline exceeded: no answer in time".into()),
    }
}

fn port(probed: &Probed, port: &crate::pod::spec::Port) -> Result<u16, String> {
    probed
        .container
        .port(port)
        .ok_or_else(|| format!("the container has no port named {port:?}"))
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    let stream = match host.parse::<IpAddr>() {
        Ok(ip) => TcpStream::connect((ip, port)).await,
        Err(_) => TcpStream::connect((host, port)).await,
    };
    stream.map_err(|e| format!("dial tcp {host}:{port}: {e}"))
}

/// Success is any status from 200 to 399. Certificates are not verified: the pod's own is what is asked for.
async fn http(probed: &Probed, get: &HttpGet) -> Result<(), String> {
    let host = if get.host.is_empty() {
        probed.ip.as_str()
    } else {
        &get.host
    };
    let port = port(probed, &get.port)?;
    let path = if get.path.starts_with('/') {
        get.path.clone()
    } else {
        format!("/{}", get.path)
    };
    let mut request = http::Request::get(path).header(http::header::USER_AGENT, "kube-probe/1.36");
    let named = |name: &str| get.http_headers.iter().any(|h| h.name.eq_ignore_ascii_case(name));
    if !named("host") {
        request = request.header(http::header::HOST, format!("{host}:{port}"));
    }
    if !named("accept") {
        request = request.header(http::header::ACCEPT, "*/*");
    }
    for header in &get.http_headers {
        request = request.header(&header.name, &header.value);
    }
    let request = request
        .header(http::header::CONNECTION, "close")
        .body(Empty::<Bytes>::new());
    let request = request.map_err(|e| e.to_string())?;
    let stream = connect(host, port).await?;
    let said = |e: hyper::Error| format!("Get \"{}://{host}:{port}\": {e}", get.scheme.to_lowercase());
    let response = if get.scheme.eq_ignore_ascii_case("https") {
        let stream = tls::connect(host, stream).await.map_err(|e| e.to_string())?;
        let (mut send, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(said)?;
        let _driver = Driver(tokio::spawn(async move { drop(connection.await) }));
        send.send_request(request).await.map_err(said)?
    } else {
        let (mut send, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(said)?;
        let _driver = Driver(tokio::spawn(async move { drop(connection.await) }));
        send.send_request(request).await.map_err(said)?
    };
    let status = response.status();
    if status.is_success() || status.is_redirection() {
        return Ok(());
    }
    Err(format!("HTTP probe failed with statuscode: {}", status.as_u16()))
}

/// Ends a connection's task with the probe.
struct Driver(tokio::task::JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// `grpc.health.v1.Health/Check`, written by hand: one message of one field each way.
async fn grpc(probed: &Probed, rpc: &Grpc) -> Result<(), String> {
    let stream = connect(&probed.ip, rpc.port).await?;
    let io = TokioIo::new(stream);
    let said = |e: hyper::Error| format!("error: health rpc failed: {e}");
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut send, connection) = hyper::client::conn::http2::handshake(executor, io)
        .await
        .map_err(said)?;
    let _driver = Driver(tokio::spawn(async move { drop(connection.await) }));
    let service = &rpc.service.as_bytes()[..rpc.service.len().min(127)];
    let mut message = Vec::new();
    if !service.is_empty() {
        message.extend([0x0a, service.len() as u8]);
        message.extend(service);
    }
    let mut frame = vec![0];
    frame.extend((message.len() as u32).to_be_bytes());
    frame.extend(message);
    let request = http::Request::post(format!("http://{}:{}/grpc.health.v1.Health/Check", probed.ip, rpc.port))
        .header(http::header::CONTENT_TYPE, "application/grpc")
        .header("te", "trailers")
        .body(Full::new(Bytes::from(frame)))
        .map_err(|e| e.to_string())?;
    let response = send.send_request(request).await.map_err(said)?;
    let body = Limited::new(response.into_body(), 4096).collect().await;
    let body = body.map_err(|e| format!("error: health rpc failed: {e}"))?.to_bytes();
    // Five bytes of frame, then field 1: 1 is SERVING.
    match body.get(5..) {
        Some([0x08, 0x01, ..]) => Ok(()),
        Some([0x08, status, ..]) => Err(format!("service unhealthy (responded with {status})")),
        _ => Err("service unhealthy (no health answer)".into()),
    }
}
