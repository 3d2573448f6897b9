//! Which addresses a cluster on this machine uses, and what its proxy needs for them.

use std::net::IpAddr;

use clap::ValueEnum;
use proxy::{Engine, nftables, userspace};

/// How Services are made to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProxyMode {
    /// Connections carried by this process, on loopback addresses; needs no rights
    Userspace,
    /// Rules in the kernel; needs root
    Nftables,
}

impl ProxyMode {
    /// Cluster IPs. Where nobody may change the packet filter they are loopback addresses: Linux answers on all of 127/8
    /// without being told, and kubelet's Wasm pods use another part of it.
    pub fn service_range(self) -> &'static str {
        match self {
            ProxyMode::Userspace => "127.96.0.0/16",
            ProxyMode::Nftables => "10.96.0.0/16",
        }
    }

    /// Where pods ask for names: the address that kubeadm clusters have, in this mode's range.
    pub fn dns_address(self) -> IpAddr {
        match self {
            ProxyMode::Userspace => IpAddr::from([127, 96, 0, 10]),
            ProxyMode::Nftables => IpAddr::from([10, 96, 0, 10]),
        }
    }

    pub fn engine(self, pod_cidr: Option<&str>) -> anyhow::Result<Box<dyn Engine>> {
        Ok(match self {
            ProxyMode::Userspace => Box::new(userspace::Userspace::new(userspace::Settings::default())),
            ProxyMode::Nftables => {
                let pod_cidrs = pod_cidr.map(str::parse).transpose()?.into_iter().collect();
                Box::new(nftables::Nftables::new(nftables::Settings {
                    pod_cidrs,
                    ..nftables::Settings::default()
                }))
            }
        })
    }
}
