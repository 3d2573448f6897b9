//! The userspace engine: listens where Services are and passes bytes on. Needs no privilege.
//!
//! Cluster IPs come from a loopback network in this mode (such as 127.96.0.0/12), so that every one of them can be listened on.
//! A Service without endpoints has no listener, and the kernel refuses its clients as it should.

mod balance;
mod doors;
mod tcp;
mod udp;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use model::Failure;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::engine::{Engine, Unserved};
use crate::facts::Protocol;
use crate::plan::{Plan, PortName};
use balance::Balancer;
use doors::{Door, doors};

#[derive(Debug, Clone)]
pub struct Settings {
    /// Where node ports listen: 127.0.0.1 keeps them on this machine, 0.0.0.0 opens them to the network.
    pub node_port_addresses: Vec<IpAddr>,
    /// TCP connections at one time, over all Services. More wait in the kernel's queues.
    pub connections: usize,
    /// UDP flows at one time, over all Services. The datagrams of more are dropped.
    pub flows: usize,
    /// How long an endpoint may take to accept before the next is tried.
    pub connect_timeout: Duration,
    /// How long a UDP flow lives without a datagram.
    pub flow_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            node_port_addresses: vec![IpAddr::from([127, 0, 0, 1])],
            connections: 4096,
            flows: 4096,
            connect_timeout: Duration::from_secs(3),
            flow_timeout: Duration::from_secs(60),
        }
    }
}

/// Listens for every Service on loopback. Dropping it ends everything.
pub struct Userspace {
    settings: Settings,
    open: BTreeMap<Door, Listener>,
    /// Doors that this user may not open, whatever we do.
    forbidden: BTreeMap<Door, Unserved>,
    shared: Arc<Shared>,
}

/// What all listeners share.
struct Shared {
    connections: Arc<Semaphore>,
    flows: Arc<Semaphore>,
    connect_timeout: Duration,
    flow_timeout: Duration,
    /// Connections outlive their listener: when a Service goes, what runs may finish.
    running: TaskTracker,
    stop: CancellationToken,
}

impl Shared {
    fn new(settings: &Settings) -> Arc<Self> {
        Arc::new(Self {
            connections: Arc::new(Semaphore::new(settings.connections)),
            flows: Arc::new(Semaphore::new(settings.flows)),
            connect_timeout: settings.connect_timeout,
            flow_timeout: settings.flow_timeout,
            running: TaskTracker::new(),
            stop: CancellationToken::new(),
        })
    }
}

struct Listener {
    balancer: Arc<Balancer>,
    task: AbortHandle,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Userspace {
    /// Must be called on a Tokio runtime.
    pub fn new(settings: Settings) -> Self {
        let shared = Shared::new(&settings);
        Self {
            settings,
            open: BTreeMap::new(),
            forbidden: BTreeMap::new(),
            shared,
        }
    }

    fn bind(&self, door: Door, balancer: Arc<Balancer>) -> io::Result<Listener> {
        let shared = self.shared.clone();
        let task = match door.protocol {
            Protocol::Tcp => {
                let listener = tcp::bind(door.at)?;
                tokio::spawn(tcp::accept(listener, balancer.clone(), shared))
            }
            Protocol::Udp => {
                let socket = udp::bind(door.at)?;
                tokio::spawn(udp::pass(socket, balancer.clone(), shared))
            }
            Protocol::Sctp => return Err(io::ErrorKind::Unsupported.into()),
        };
        Ok(Listener {
            balancer,
            task: task.abort_handle(),
        })
    }
}

#[async_trait]
impl Engine for Userspace {
    async fn sync(&mut self, plan: &Arc<Plan>) -> Result<(), Failure> {
        let wanted = doors(plan, &self.settings.node_port_addresses);
        // First close: a node port may have moved from one Service to another.
        self.open.retain(|door, _| wanted.contains_key(door));
        self.forbidden.retain(|door, _| wanted.contains_key(door));
        let mut failed = Vec::new();
        for (door, route) in wanted {
            if let Some(listener) = self.open.get(&door) {
                listener.balancer.change(route);
                continue;
            }
            let service = route.service.clone();
            match self.bind(door, Arc::new(Balancer::new(route))) {
                Ok(listener) => drop(self.open.insert(door, listener)),
                // Trying again does not help here; people can.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported
                    ) =>
                {
                    self.forbidden.insert(door, unserved(&service, door, &error));
                }
                Err(error) => failed.push(format!("{door} for {service}: {error}")),
            }
        }
        if failed.is_empty() {
            return Ok(());
        }
        let (count, first) = (failed.len(), failed.swap_remove(0));
        let source = format!("{count} cannot be listened on; the first is {first}").into();
        Err(Failure::Unavailable {
            what: "an address of a Service",
            source,
        })
    }

    fn unserved(&self) -> BTreeSet<Unserved> {
        self.forbidden.values().cloned().collect()
    }

    async fn cleanup(&mut self) -> Result<(), Failure> {
        self.open.clear();
        self.shared.stop.cancel();
        self.shared.running.close();
        self.shared.running.wait().await;
        self.shared = Shared::new(&self.settings);
        Ok(())
    }
}

impl Drop for Userspace {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

fn unserved(service: &PortName, door: Door, error: &io::Error) -> Unserved {
    Unserved {
        namespace: service.namespace.clone(),
        service: service.service.clone(),
        why: format!("cannot listen on {door} ({error}): {}", advice(error.kind())),
    }
}

fn advice(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need a privilege: give the Service a higher port, use its node port, or run as root \
             `sysctl net.ipv4.ip_unprivileged_port_start=0`"
        }
        _ => "the userspace proxy passes on TCP and UDP only; use the nftables proxy",
    }
}
