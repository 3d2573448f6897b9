//! The wiring: every trait of the house meets its implementation here, in start order.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use api::ApiConfig;
use api::escalation::NoEscalation;
use api::gates::{AuditGate, RbacGate, TokenGate};
use api::tls::ServingCertificate;
use auth::audit::{FileLog, NoLog};
use auth::kubeconfig::Kubeconfig;
use auth::pki::{Authority, Purpose};
use auth::token::{ServiceAccounts, Tokens};
use auth::{Authenticators, Rbac, users};
use client::node::{NodeStreams, Nodes};
use client::usage::Meter;
use kubelet::KubeletConfig;
use kubelet::runtime::Runtime;
use kubelet::runtime::cri::CriRuntime;
use kubelet::runtime::fake::FakeRuntime;
use kubelet::runtime::wasm::{ImageStore, ShimCommand, WasmRuntime};
use policy::{Means, Policies, Webhooks};
use registry::{Media, Options as RegistryOptions, Registry};
use store::Store;
use store::etcd::{Certificate, EtcdOptions, EtcdStore, EtcdTls, Identity};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::dir::{Dir, write_private};
use crate::network::ProxyMode;
use crate::plugins::Plugins;
use crate::up::{Options, RuntimeKind, StorageMedia};

const DOMAIN: &str = "cluster.local";
/// Renewed in time while the server runs, and made anew at every start.
const SERVING_LIFETIME: Duration = Duration::from_secs(90 * 24 * 3600);
const ADMIN_LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);

/// A running cluster.
pub struct Cluster {
    /// Everything that acts on the cluster stops first …
    workers: (CancellationToken, TaskTracker),
    /// … and the door last, so that their last words are heard.
    door: (CancellationToken, TaskTracker),
    sandboxes: std::path::PathBuf,
}

impl Cluster {
    /// Starts everything; returns when the API answers, the plugins are loaded and the node is there.
    pub async fn start(dir: &Dir, options: &Options, step: &dyn Fn(&str)) -> Result<Self> {
        step("opening the store");
        let store = open_store(dir, options).await?;
        let proxy_mode = options.proxy.unwrap_or(match options.runtime {
            RuntimeKind::Cri => ProxyMode::Nftables,
            RuntimeKind::Wasm | RuntimeKind::Fake => ProxyMode::Userspace,
        });
        let node_ip = match proxy_mode {
            ProxyMode::Nftables => own_address(),
            ProxyMode::Userspace => IpAddr::from([127, 0, 0, 1]),
        };
        let listener = listen(dir, options, node_ip).await?;
        let address = listener.local_addr()?;

        step("reading the cluster");
        let authority = Arc::new(dir.authority()?);
        let tokens = Arc::new(Tokens::new(
            "https://kubernetes.default.svc.cluster.local",
            &dir.signing_key()?,
        )?);
        let rbac = Arc::new(Rbac::new(auth::defaults::policy()));
        let sink: Arc<dyn auth::audit::Sink> = match &options.audit_log {
            Some(path) => {
                Arc::new(FileLog::open(path).with_context(|| format!("{} cannot be written", path.display()))?)
            }
            None => Arc::new(NoLog),
        };
        let plugins = Plugins::new(dir, authority.certificate_pem())?;
        let gate = Arc::new(RbacGate(rbac.clone()));
        let policies = Policies::around(plugins.admission());
        let webhooks = Webhooks::new();
        let mut wiring = RegistryOptions::new(
            gate.clone(),
            Arc::new(NoEscalation {
                rbac: rbac.clone(),
                rest: policies.clone(),
            }),
            Arc::new(AuditGate(sink.clone())),
        );
        wiring.sign_token = Some(Arc::new(TokenGate(tokens.clone())));
        wiring.figures = plugins.figures();
        wiring.convert = Some(webhooks.clone());
        wiring.media = media(options);
        wiring.network.service_ranges = vec![proxy_mode.service_range().into()];
        wiring.network.api_port = address.port();
        wiring.network.api_address = Some(if address.ip().is_unspecified() {
            own_address()
        } else {
            address.ip()
        });
        let registry = Registry::open(store, wiring).await?;
        let cluster: Arc<dyn client::Cluster> = Arc::new(registry.clone());
        auth::defaults::ensure(&*cluster, &users::api_server()).await?;

        let workers = (CancellationToken::new(), TaskTracker::new());
        let door = (CancellationToken::new(), TaskTracker::new());
        door.1
            .spawn(stoppable(door.0.clone(), rbac.clone().keep_current(cluster.clone())));
        rbac.wait_until_synced().await;
        webhooks.connect(&cluster);
        let means = Means {
            registry: registry.clone(),
            authorize: gate,
        };
        let following = policies.start(means).await?;
        door.1.spawn(stoppable(door.0.clone(), following));

        step("opening the door");
        let nodes = node_configs(dir, options, node_ip, proxy_mode);
        let running = nodes.iter().map(|config| Ok((config.clone(), runtime(dir, options)?)));
        let running: Vec<(KubeletConfig, Arc<dyn Runtime>)> = running.collect::<Result<_>>()?;
        let hosts = serving_hosts(&registry.api_service_ip(), node_ip);
        let purpose = Purpose::Serving {
            name: "kube-apiserver",
            hosts: hosts.clone(),
        };
        let identity = authority.issue(&purpose, SERVING_LIFETIME)?;
        let certificate = ServingCertificate::new(&identity)?;
        let renewal = certificate
            .clone()
            .keep_fresh(authority.clone(), hosts, SERVING_LIFETIME, identity.expires);
        door.1.spawn(stoppable(door.0.clone(), renewal));
        let accounts = ServiceAccounts {
            tokens: tokens.clone(),
            cluster: cluster.clone(),
        };
        let authenticators = Arc::new(Authenticators::default().service_accounts(accounts));
        let tls = api::tls::config(certificate, authority.certificate_pem())?;
        let mut api = ApiConfig::new(cluster.clone(), authenticators, rbac, tls);
        api.tables = Arc::new(registry.clone());
        api.connections = Arc::new(registry.clone());
        api.tokens = Some(tokens);
        api.audit = sink;
        let streams = running.iter().map(|(config, runtime)| {
            let streams = kubelet::streams(config, cluster.clone(), runtime.clone());
            (config.node_name.clone(), streams)
        });
        api.nodes = Arc::new(LocalNodes(streams.collect()));
        api.meter = Arc::new(Meter::new(cluster.clone(), users::api_server(), api.nodes.clone()));
        let stop = door.0.clone();
        door.1.spawn(async move {
            if let Err(error) = api::serve(listener, api, stop).await {
                tracing::error!(%error, "the API stopped");
            }
        });
        write_kubeconfig(dir, &authority, address)?;

        step("loading the plugins");
        plugins.start(&registry, &workers.0, &workers.1).await?;

        step("starting the node");
        for (config, runtime) in running {
            let (cluster, stop) = (cluster.clone(), workers.0.clone());
            workers.1.spawn(async move {
                if let Err(error) = kubelet::run(config, cluster, runtime, stop).await {
                    tracing::error!(%error, "the node stopped");
                }
            });
        }
        start_network(&registry, options, proxy_mode, node_ip, &workers).await?;
        wait_for_nodes(&*cluster, &nodes).await?;
        Ok(Self {
            workers,
            door,
            sandboxes: dir.sandboxes(),
        })
    }

    /// Ends the workers, then the door, then the pods' processes.
    pub async fn stop(self) {
        for (stop, tasks) in [self.workers, self.door] {
            stop.cancel();
            tasks.close();
            if tokio::time::timeout(Duration::from_secs(10), tasks.wait())
                .await
                .is_err()
            {
                tracing::warn!("something did not stop in 10 s and is cut off");
            }
        }
        if let Err(error) = WasmRuntime::end_all(&self.sandboxes) {
            tracing::warn!(%error, "a pod's process may be left");
        }
    }
}

/// Runs `work` until `stop`.
async fn stoppable(stop: CancellationToken, work: impl Future<Output = ()>) {
    stop.run_until_cancelled_owned(work).await;
}

async fn open_store(dir: &Dir, options: &Options) -> Result<Arc<dyn Store>> {
    if options.etcd.is_empty() {
        let path = dir.store();
        let opened =
            tokio::task::spawn_blocking(move || store::embedded::open(&path, store::embedded::Options::default()));
        return Ok(Arc::new(opened.await?.context("the store cannot be opened")?));
    }
    let read = |path: &Path| std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()));
    let mut etcd = EtcdOptions::new(options.etcd.clone());
    if let Some(ca) = &options.etcd_ca {
        let identity = match (&options.etcd_cert, &options.etcd_key) {
            (Some(certificate), Some(key)) => Some(Identity::from_pem(read(certificate)?, read(key)?)),
            _ => None,
        };
        etcd.tls = Some(EtcdTls {
            ca: Certificate::from_pem(read(ca)?),
            identity,
            server_name: None,
        });
    }
    Ok(Arc::new(
        EtcdStore::connect(etcd).await.context("etcd cannot be reached")?,
    ))
}

/// On etcd the form that a stock kube-apiserver can take over.
fn media(options: &Options) -> Media {
    match options.storage_media_type {
        Some(StorageMedia::Json) => Media::Json,
        Some(StorageMedia::Protobuf) => Media::Protobuf,
        None if options.etcd.is_empty() => Media::Json,
        None => Media::Protobuf,
    }
}

/// The address asked for, else that of the last time (kubeconfigs name it), else 6443, else any.
async fn listen(dir: &Dir, options: &Options, node_ip: IpAddr) -> Result<TcpListener> {
    let host = if node_ip.is_loopback() {
        node_ip
    } else {
        IpAddr::from([0, 0, 0, 0])
    };
    let listener = if let Some(asked) = options.listen {
        TcpListener::bind(asked)
            .await
            .with_context(|| format!("{asked} cannot be listened on"))?
    } else if let Some(last) = dir.last_address() {
        let bound = TcpListener::bind(last).await;
        bound.with_context(|| {
            format!("{last}, where this cluster's kubeconfig points, cannot be listened on; --listen names another")
        })?
    } else {
        match TcpListener::bind((host, 6443)).await {
            Ok(listener) => listener,
            Err(_) => TcpListener::bind((host, 0)).await?,
        }
    };
    dir.remember_address(listener.local_addr()?)?;
    Ok(listener)
}

/// The address this machine would reach others from; loopback where it has no network.
fn own_address() -> IpAddr {
    // Nothing is sent: connecting a UDP socket only asks the routing table.
    let asked = UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        socket.connect("10.255.255.255:9")?;
        socket.local_addr()
    });
    asked.map_or(IpAddr::from([127, 0, 0, 1]), |address| address.ip())
}

fn serving_hosts(service_ip: &str, node_ip: IpAddr) -> Vec<String> {
    let names = [
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
    ]
    .map(String::from);
    let mut hosts = names.to_vec();
    hosts.push(format!("kubernetes.default.svc.{DOMAIN}"));
    hosts.extend(["127.0.0.1".into(), service_ip.to_owned(), node_ip.to_string()]);
    hosts.sort();
    hosts.dedup();
    hosts
}

fn write_kubeconfig(dir: &Dir, authority: &Authority, address: SocketAddr) -> Result<()> {
    let purpose = Purpose::Client {
        user: "kubernetes-admin",
        group: users::MASTERS,
    };
    let identity = authority.issue(&purpose, ADMIN_LIFETIME)?;
    let host = if address.ip().is_unspecified() {
        IpAddr::from([127, 0, 0, 1])
    } else {
        address.ip()
    };
    let kubeconfig = Kubeconfig {
        name: "pilotis",
        server: &format!("https://{}", SocketAddr::new(host, address.port())),
        ca_pem: authority.certificate_pem(),
        user: "kubernetes-admin",
        identity: &identity,
    };
    write_private(&dir.kubeconfig(), &kubeconfig.yaml())
}

fn node_configs(dir: &Dir, options: &Options, node_ip: IpAddr, proxy: ProxyMode) -> Vec<KubeletConfig> {
    let count = if options.runtime == RuntimeKind::Fake {
        options.fake_nodes
    } else {
        1
    };
    let one = |n: u32| {
        let name = if count == 1 {
            options.node_name.clone()
        } else {
            format!("{}-{n}", options.node_name)
        };
        let mut config = KubeletConfig::new(&name, dir.node().join(&name));
        config.node_ip = node_ip;
        config.cluster_dns = vec![proxy.dns_address()];
        config.cluster_domain = DOMAIN.into();
        config
    };
    (0..count).map(one).collect()
}

fn runtime(dir: &Dir, options: &Options) -> Result<Arc<dyn Runtime>> {
    Ok(match options.runtime {
        RuntimeKind::Wasm => {
            let images = ImageStore::open(dir.images()).context("the image store cannot be opened")?;
            Arc::new(WasmRuntime::new(dir.sandboxes(), images, ShimCommand::default())?)
        }
        RuntimeKind::Cri => Arc::new(CriRuntime::new(&options.cri_socket, &options.node_name)?),
        RuntimeKind::Fake => Arc::new(FakeRuntime::new()),
    })
}

async fn start_network(
    registry: &Registry,
    options: &Options,
    mode: ProxyMode,
    node_ip: IpAddr,
    (stop, tasks): &(CancellationToken, TaskTracker),
) -> Result<()> {
    let cluster: Arc<dyn client::Cluster> = Arc::new(registry.clone());
    let engine = mode.engine(options.pod_cidr.as_deref())?;
    let config = proxy::ProxyConfig::new(&options.node_name);
    let (of_proxy, stop_proxy) = (cluster.clone(), stop.clone());
    tasks.spawn(async move {
        if let Err(error) = proxy::run(config, of_proxy, engine, stop_proxy).await {
            tracing::error!(%error, "the proxy left something behind");
        }
    });
    let mut config = proxy::DnsConfig::new(SocketAddr::new(node_ip, 0));
    config.domain = DOMAIN.into();
    let dns = proxy::dns::Dns::bind(config).await?;
    crate::dns::publish(registry, mode, dns.addresses()).await?;
    let stop = stop.clone();
    tasks.spawn(async move {
        if let Err(error) = dns.serve(cluster, stop).await {
            tracing::error!(%error, "cluster DNS stopped");
        }
    });
    Ok(())
}

/// Until each node has registered: pods would find nowhere to go before.
async fn wait_for_nodes(cluster: &dyn client::Cluster, nodes: &[KubeletConfig]) -> Result<()> {
    let gvr = model::Gvr::new("", "v1", "nodes");
    for node in nodes {
        let target = client::Target::new(gvr.clone(), "", &node.node_name);
        let there = async {
            while cluster
                .get(&users::api_server(), &target, client::ReadVersion::Any)
                .await
                .is_err()
            {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(60), there).await;
        waited.with_context(|| {
            format!(
                "the node {} did not register; is its container runtime running?",
                node.node_name
            )
        })?;
    }
    Ok(())
}

/// The nodes that run in this process.
struct LocalNodes(std::collections::BTreeMap<String, Arc<dyn NodeStreams>>);

impl Nodes for LocalNodes {
    fn streams(&self, node: &str) -> Option<Arc<dyn NodeStreams>> {
        self.0.get(node).cloned()
    }
}
