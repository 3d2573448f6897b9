//! `pods/portforward`: connections to ports of a pod, on the three wires that clients use.
//!
//! kubectl opens a pair of SPDY streams for each connection (data and error), on an upgraded connection or inside a WebSocket
//! (KEP-4006); kube-rs and the Python client open one WebSocket whose channels are two a port.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use client::Target;
use client::node::{ContainerRef, Duplex, NodeStreams};
use futures::{SinkExt, StreamExt};
use http::request;
use model::Failure;
use serde_json::json;
use spdy::{Server, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::upgrade::Wire;
use super::{Pod, tunnel, upgrade};
use crate::verbs::Doing;

const SPDY: &[&str] = &["portforward.k8s.io"];
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
const WEBSOCKET: &[&str] = &[TUNNEL, "v4.channel.k8s.io"];

/// Bytes that are read from a pod at once.
const CHUNK: usize = 32 << 10;
/// Ports that one WebSocket can name: its channels are numbered with a byte, two for each.
const PORTS: usize = 128;
/// Half pairs that may wait for their other half.
const WAITING: usize = 100;

pub(super) async fn answer(doing: &Doing<'_>, pod: &Pod, mut parts: request::Parts) -> Result<Response, Failure> {
    let node = pod.running_on(doing)?;
    if pod.document.status.phase != "Running" {
        return Err(Failure::BadRequest(format!(
            "unable to forward port because pod is not running. Current status={}",
            pod.document.status.phase
        )));
    }
    let ports = ports(doing.query.all("ports"))?;
    let at = doing.at;
    let target = Target::new(at.gvr.clone(), &at.namespace, &at.name).subresource(&at.subresource);
    let options = json!({"apiVersion": "v1", "kind": "PodPortForwardOptions", "ports": ports});
    doing
        .app
        .connections
        .admit(&doing.asked.caller, "create", &target, &options)
        .await?;
    let stop = doing.app.stop.clone();
    let to = To {
        node,
        of: pod.reference(String::new()),
    };
    if upgrade::wants_spdy(&parts.headers) {
        let spdy = upgrade::spdy(&mut parts, SPDY)?;
        return Ok(spdy.answer(async move |wire| {
            stop.run_until_cancelled(pairs(wire, to)).await;
        }));
    }
    let (upgrade, protocol) = upgrade::websocket(&mut parts, WEBSOCKET).await?;
    if protocol != TUNNEL && ports.is_empty() {
        return Err(Failure::BadRequest("query parameter \"ports\" is required".into()));
    }
    Ok(upgrade.on_upgrade(async move |socket| {
        let work = async {
            match protocol {
                TUNNEL => pairs(Box::new(tunnel::open(socket)), to).await,
                _ => channels(socket, to, ports).await,
            }
        };
        stop.run_until_cancelled(work).await;
    }))
}

/// `ports=80&ports=443` or `ports=80,443`.
fn ports<'a>(asked: impl Iterator<Item = &'a str>) -> Result<Vec<u16>, Failure> {
    let texts = asked.flat_map(|value| value.split(','));
    let ports: Vec<u16> = texts
        .map(|text| {
            let port = text.parse().ok().filter(|port| *port > 0);
            port.ok_or_else(|| Failure::BadRequest(not_a_port(text)))
        })
        .collect::<Result<_, _>>()?;
    if ports.len() > PORTS {
        return Err(Failure::BadRequest(format!(
            "{} ports asked for: one WebSocket carries {PORTS}",
            ports.len()
        )));
    }
    Ok(ports)
}

fn not_a_port(text: &str) -> String {
    format!("\"{text}\" is not a port: ports are 1 to 65535")
}

/// Whose ports.
#[derive(Clone)]
struct To {
    node: Arc<dyn NodeStreams>,
    of: ContainerRef,
}

impl To {
    /// The sentence is what clients print.
    async fn connect(&self, port: u16) -> Result<Box<dyn Duplex>, String> {
        let told = |failure: Failure| {
            format!(
                "error forwarding port {port} to pod {}, uid {}: {failure}",
                self.of.pod, self.of.uid
            )
        };
        self.node.port_forward(&self.of, port).await.map_err(told)
    }
}

/// Serves pairs of SPDY streams until the client leaves.
async fn pairs(wire: Box<dyn Wire>, to: To) {
    let Ok(mut connection) = Server::start(wire) else {
        return;
    };
    let mut waiting: HashMap<String, Stream> = HashMap::new();
    // Dropped with the connection, and with it all that is forwarded.
    let mut forwarded = JoinSet::new();
    loop {
        let stream = tokio::select! {
            stream = connection.accept() => stream,
            Some(_) = forwarded.join_next() => continue,
        };
        let Some(stream) = stream else { return };
        let first = waiting.remove(&request_id(&stream));
        let Some(first) = first else {
            if waiting.len() < WAITING {
                waiting.insert(request_id(&stream), stream);
            }
            continue;
        };
        let is_data = |s: &Stream| s.headers.get("streamtype") == "data";
        let (data, error) = match (is_data(&first), is_data(&stream)) {
            (true, false) => (first, stream),
            (false, true) => (stream, first),
            // Two of a sort are no pair: the newer one counts.
            _ => {
                waiting.insert(request_id(&stream), stream);
                continue;
            }
        };
        let to = to.clone();
        forwarded.spawn(async move {
            let port = data.headers.get("port");
            let output = &data.output;
            let send = |bytes| async { output.send(bytes).await.is_ok() };
            let outcome = match port.parse() {
                Ok(port) => relay(&to, port, data.input, send).await,
                Err(_) => Err(not_a_port(port)),
            };
            let _ = output.finish().await;
            if let Err(sentence) = outcome {
                let _ = error.output.send(sentence.into()).await;
            }
            let _ = error.output.finish().await;
        });
    }
}

/// What two streams have in common. Clients before 1.5 send none: there the error stream comes first, and data next.
fn request_id(stream: &Stream) -> String {
    match stream.headers.get("requestid") {
        "" if stream.headers.get("streamtype") == "data" => stream.id.saturating_sub(2).to_string(),
        "" => stream.id.to_string(),
        id => id.to_owned(),
    }
}

/// One connection, until the pod has ended its side; the client may end its own before. `send` says whether the client
/// still listens.
async fn relay<F: Future<Output = bool>>(
    to: &To,
    port: u16,
    mut input: mpsc::Receiver<Bytes>,
    send: impl Fn(Bytes) -> F,
) -> Result<(), String> {
    let (mut from_pod, mut to_pod) = tokio::io::split(to.connect(port).await?);
    let inward = async {
        while let Some(bytes) = input.recv().await {
            to_pod.write_all(&bytes).await?;
        }
        to_pod.shutdown().await
    };
    let outward = async {
        let mut buffer = BytesMut::with_capacity(CHUNK);
        loop {
            buffer.reserve(CHUNK);
            if from_pod.read_buf(&mut buffer).await? == 0 || !send(buffer.split().freeze()).await {
                return Ok(());
            }
        }
    };
    both(inward, outward)
        .await
        .map_err(|error| format!("error forwarding port {port} to pod {}: {error}", to.of.pod))
}

/// Ends with `outward`: a pod that has said all needs no more input. A pod that takes no input may still speak.
async fn both(
    inward: impl Future<Output = std::io::Result<()>>,
    outward: impl Future<Output = std::io::Result<()>>,
) -> std::io::Result<()> {
    tokio::pin!(inward, outward);
    tokio::select! {
        said = &mut outward => said,
        _ = &mut inward => outward.await,
    }
}

/// Two channels a port: `2n` for data, `2n + 1` for errors. Each begins with the port, two bytes, little end first.
async fn channels(socket: WebSocket, to: To, ports: Vec<u16>) {
    let (mut out, mut from) = socket.split();
    let (say, mut said) = mpsc::channel::<Bytes>(16);
    let mut inputs = Vec::new();
    let mut forwarded = JoinSet::new();
    for (n, port) in ports.into_iter().enumerate() {
        let (data, error) = (2 * n as u8, 2 * n as u8 + 1);
        for channel in [data, error] {
            if out
                .send(Message::Binary(framed(channel, &port.to_le_bytes())))
                .await
                .is_err()
            {
                return;
            }
        }
        let (feed, input) = mpsc::channel(16);
        inputs.push(feed);
        let (say, to) = (say.clone(), to.clone());
        forwarded.spawn(async move {
            let say = &say;
            let send = move |bytes: Bytes| async move { say.send(framed(data, &bytes)).await.is_ok() };
            if let Err(sentence) = relay(&to, port, input, send).await {
                let _ = say.send(framed(error, sentence.as_bytes())).await;
            }
        });
    }
    drop(say);
    let outward = async {
        while let Some(message) = said.recv().await {
            if out.send(Message::Binary(message)).await.is_err() {
                return;
            }
        }
        let end = CloseFrame {
            code: close_code::NORMAL,
            reason: "".into(),
        };
        let _ = out.send(Message::Close(Some(end))).await;
    };
    let inward = async {
        while let Some(Ok(message)) = from.next().await {
            if matches!(message, Message::Close(_)) {
                return;
            }
            let Some(bytes) = upgrade::said(message) else { continue };
            let Some(channel) = bytes.first().copied().filter(|c| c % 2 == 0) else {
                continue;
            };
            if let Some(feed) = inputs.get(usize::from(channel / 2)) {
                let _ = feed.send(bytes.slice(1..)).await;
            }
        }
    };
    tokio::select! {
        () = outward => {}
        () = inward => {}
    }
}

fn framed(channel: u8, data: &[u8]) -> Bytes {
    let mut message = BytesMut::with_capacity(data.len() + 1);
    message.extend_from_slice(&[channel]);
    message.extend_from_slice(data);
    message.freeze()
}
