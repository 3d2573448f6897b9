//! UDP: a flow for each client address, with a socket of its own towards its endpoint.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::AbortHandle;

use super::Shared;
use super::balance::Balancer;
use super::doors::Route;

/// The largest datagram there can be.
const LARGEST: usize = 65_535;

pub fn bind(at: SocketAddr) -> io::Result<UdpSocket> {
    let socket = std::net::UdpSocket::bind(at)?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

struct Flow {
    /// Tells this flow from a later one of the same client.
    number: u64,
    endpoint: SocketAddr,
    /// The route under which the endpoint was last seen to be good.
    route: Arc<Route>,
    upstream: Arc<UdpSocket>,
    last: Arc<Mutex<Instant>>,
    answers: AbortHandle,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.answers.abort();
    }
}

/// Passes datagrams on until aborted.
pub async fn pass(socket: UdpSocket, balancer: Arc<Balancer>, shared: Arc<Shared>) {
    let socket = Arc::new(socket);
    let mut flows: HashMap<SocketAddr, Flow> = HashMap::new();
    let mut started = 0;
    let (done, mut ended) = mpsc::channel::<(SocketAddr, u64)>(64);
    let mut datagram = vec![0; LARGEST];
    loop {
        let (length, client) = tokio::select! {
            Some((client, number)) = ended.recv() => {
                if flows.get(&client).is_some_and(|flow| flow.number == number) {
                    flows.remove(&client);
                }
                continue;
            }
            received = socket.recv_from(&mut datagram) => match received {
                Ok(received) => received,
                // An answer that could not be delivered comes back as an error here; it is not ours to mend.
                Err(_) => continue,
            },
        };
        let route = balancer.route();
        if !route.admits(client.ip()) {
            continue;
        }
        // A flow whose endpoint left starts anew elsewhere: in UDP nothing is half-said.
        let stays = flows.get_mut(&client).is_some_and(|flow| flow.stays(&route));
        if !stays {
            flows.remove(&client);
            let Ok(permit) = shared.flows.clone().try_acquire_owned() else {
                continue;
            };
            let Some(endpoint) = balancer.order(client.ip(), Instant::now()).first().copied() else {
                continue;
            };
            let Ok(upstream) = connect(endpoint).await.map(Arc::new) else {
                continue;
            };
            balancer.served(client.ip(), endpoint, Instant::now());
            started += 1;
            let last = Arc::new(Mutex::new(Instant::now()));
            let back = Back {
                socket: socket.clone(),
                client,
                upstream: upstream.clone(),
                last: last.clone(),
            };
            let (done, number, idle) = (done.clone(), started, shared.flow_timeout);
            let answers = tokio::spawn(async move {
                back.pass(idle).await;
                let _ = done.send((client, number)).await;
            });
            let answers = answers.abort_handle();
            flows.insert(
                client,
                Flow {
                    number,
                    endpoint,
                    route,
                    upstream,
                    last,
                    answers,
                    _permit: permit,
                },
            );
        }
        if let Some(flow) = flows.get(&client) {
            touch(&flow.last);
            if flow.upstream.send(&datagram[..length]).await.is_err() {
                // The endpoint's host said no to an earlier datagram; the next one may find a better endpoint.
                flows.remove(&client);
            }
        }
    }
}

impl Flow {
    fn stays(&mut self, route: &Arc<Route>) -> bool {
        if !Arc::ptr_eq(&self.route, route) {
            if !route.endpoints.contains(&self.endpoint) {
                return false;
            }
            self.route = route.clone();
        }
        true
    }
}

async fn connect(endpoint: SocketAddr) -> io::Result<UdpSocket> {
    let any = match endpoint {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(endpoint).await?;
    Ok(socket)
}

/// The way back: answers of one endpoint to one client.
struct Back {
    socket: Arc<UdpSocket>,
    client: SocketAddr,
    upstream: Arc<UdpSocket>,
    last: Arc<Mutex<Instant>>,
}

impl Back {
    /// Until neither side has said anything for `idle`, or the endpoint's host refuses.
    async fn pass(&self, idle: Duration) {
        let mut answer = vec![0; LARGEST];
        loop {
            let quiet = self.last.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
            let Some(left) = idle.checked_sub(quiet).filter(|left| !left.is_zero()) else {
                return;
            };
            match tokio::time::timeout(left, self.upstream.recv(&mut answer)).await {
                Ok(Ok(length)) => {
                    touch(&self.last);
                    let _ = self.socket.send_to(&answer[..length], self.client).await;
                }
                Ok(Err(_)) => return,
                Err(_) => {}
            }
        }
    }
}

fn touch(last: &Mutex<Instant>) {
    *last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
}
