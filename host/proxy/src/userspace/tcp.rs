//! TCP: accept, connect to an endpoint, pass bytes both ways until both sides are done.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::Shared;
use super::balance::Balancer;

const BACKLOG: u32 = 1024;

pub fn bind(at: SocketAddr) -> io::Result<TcpListener> {
    let socket = if at.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    // Connections of a listener that was here before may still be in TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.bind(at)?;
    socket.listen(BACKLOG)
}

/// Accepts until aborted.
pub async fn accept(listener: TcpListener, balancer: Arc<Balancer>, shared: Arc<Shared>) {
    loop {
        let (client, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Mostly too many open files: others must close theirs first.
                tracing::warn!(%error, service = %balancer.route().service, "cannot accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        if !balancer.route().admits(from.ip()) {
            continue;
        }
        if shared.connections.available_permits() == 0 {
            tracing::warn!(service = %balancer.route().service, "every connection allowed is in use; new ones wait");
        }
        // Waiting here, with one connection in hand, leaves the others in the kernel's queue.
        let Ok(permit) = shared.connections.clone().acquire_owned().await else {
            return;
        };
        let (balancer, shared_by) = (balancer.clone(), shared.clone());
        let stop = shared.stop.clone();
        shared.running.spawn(async move {
            stop.run_until_cancelled(serve(client, from.ip(), &balancer, shared_by.connect_timeout))
                .await;
            drop(permit);
        });
    }
}

/// One connection, from its first byte to its last. It stays with its endpoint also after that has left the Service.
async fn serve(mut client: TcpStream, from: IpAddr, balancer: &Balancer, timeout: Duration) {
    let Some(mut endpoint) = connect(from, balancer, timeout).await else {
        return reset(&client);
    };
    // Bytes are passed on as they come; Nagle's wait would only be added twice.
    let _ = client.set_nodelay(true);
    let _ = endpoint.set_nodelay(true);
    if tokio::io::copy_bidirectional(&mut client, &mut endpoint).await.is_err() {
        // A side that broke off must not look to the other like one that has said everything.
        reset(&client);
        reset(&endpoint);
    }
}

/// The first endpoint that accepts. No byte of the client was read yet, so trying another one is safe.
async fn connect(from: IpAddr, balancer: &Balancer, timeout: Duration) -> Option<TcpStream> {
    for endpoint in balancer.order(from, Instant::now()) {
        match tokio::time::timeout(timeout, TcpStream::connect(endpoint)).await {
            Ok(Ok(stream)) => {
                balancer.served(from, endpoint, Instant::now());
                return Some(stream);
            }
            Ok(Err(error)) => tracing::debug!(%endpoint, %error, "not this one"),
            Err(_) => tracing::debug!(%endpoint, "not this one: it does not answer"),
        }
    }
    tracing::warn!(service = %balancer.route().service, "no endpoint accepts connections");
    None
}

/// The next close sends RST instead of FIN.
fn reset(stream: &TcpStream) {
    if let Err(error) = stream.set_zero_linger() {
        tracing::debug!(%error, "closing without a reset");
    }
}
