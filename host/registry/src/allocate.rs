//! Cluster IPs and node ports: who has which, and taking a free one without a race.
//!
//! The Services themselves are the truth; this is an index of them in memory, rebuilt when the registry opens. A claim is
//! taken before the Service is written and given back by itself if the write does not happen, so a crash in between
//! leaves nothing behind.

use std::net::IpAddr;

use ahash::AHashMap;
use compact_str::{CompactString, format_compact};
use model::{Failure, Object};
use parking_lot::Mutex;

use crate::gates::Dice;
use crate::registry::Network;
use crate::resource::Resource;
use crate::table::{list_at, text_at};

/// A range of addresses: `10.96.0.0/16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cidr {
    base: u128,
    bits: u8,
    v6: bool,
}

impl Cidr {
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        let bad = || Failure::BadRequest(format!("{text:?} is not a range of addresses such as 10.96.0.0/16"));
        let (address, bits) = text.split_once('/').ok_or_else(bad)?;
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let bits: u8 = bits.parse().map_err(|_| bad())?;
        let (value, width) = number(address);
        if bits > width {
            return Err(bad());
        }
        let host = u32::from(width - bits);
        let base = if host == 128 { 0 } else { value >> host << host };
        Ok(Self {
            base,
            bits,
            v6: width == 128,
        })
    }

    /// Addresses that may be given away: not the first, and in IPv4 not the last.
    fn usable(self) -> u64 {
        let host = if self.v6 { 128 } else { 32 } - u32::from(self.bits);
        // A range so large that it cannot be counted is used in its first part only, as Kubernetes does.
        let size = 1u64 << host.min(40);
        size.saturating_sub(if self.v6 { 1 } else { 2 })
    }

    pub(crate) fn first(self) -> IpAddr {
        self.nth(0)
    }

    fn nth(self, n: u64) -> IpAddr {
        let value = self.base + 1 + u128::from(n);
        if self.v6 {
            IpAddr::V6(value.into())
        } else {
            IpAddr::V4((value as u32).into())
        }
    }

    /// Is all of it in `other`?
    pub(crate) fn is_within(self, other: &Self) -> bool {
        let host = if self.v6 { 128 } else { 32 } - u32::from(other.bits);
        let network = |base: u128| if host == 128 { 0 } else { base >> host };
        self.v6 == other.v6 && self.bits >= other.bits && network(self.base) == network(other.base)
    }

    pub(crate) fn is_v6(self) -> bool {
        self.v6
    }

    fn contains(self, address: IpAddr) -> bool {
        let (value, width) = number(address);
        let n = value.wrapping_sub(self.base).wrapping_sub(1);
        (width == 128) == self.v6 && n < u128::from(self.usable())
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let base = if self.v6 {
            IpAddr::V6(self.base.into())
        } else {
            IpAddr::V4((self.base as u32).into())
        };
        write!(f, "{base}/{}", self.bits)
    }
}

fn number(address: IpAddr) -> (u128, u8) {
    match address {
        IpAddr::V4(v4) => (u32::from(v4).into(), 32),
        IpAddr::V6(v6) => (v6.into(), 128),
    }
}

/// One thing of which there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Good {
    Address(IpAddr),
    /// A port of a protocol: TCP and UDP of the same number are two.
    Port(Protocol, u16),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    pub(crate) fn of(text: &str) -> Self {
        match text {
            "UDP" => Protocol::Udp,
            "SCTP" => Protocol::Sctp,
            _ => Protocol::Tcp,
        }
    }
}

pub(crate) struct Allocator {
    pub(crate) ranges: Vec<Cidr>,
    pub(crate) ports: (u16, u16),
    /// Every good that is taken, with the `NAMESPACE/NAME` of the Service that has it.
    taken: Mutex<AHashMap<Good, CompactString>>,
}

/// The low part of a range is kept for those who ask for a certain address: KEP-3070.
fn reserved(usable: u64) -> u64 {
    match usable {
        0..16 => 0,
        _ => (usable / 16).clamp(16, 256),
    }
}

/// KEP-3668 does the same for node ports.
fn reserved_ports(count: u64) -> u64 {
    match count {
        0..32 => 0,
        _ => (count / 32).clamp(16, 128),
    }
}

impl Allocator {
    pub(crate) fn new(network: &Network) -> Result<Self, Failure> {
        let ranges = network
            .service_ranges
            .iter()
            .map(|r| Cidr::parse(r))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            ranges,
            ports: network.node_ports,
            taken: Mutex::default(),
        })
    }

    pub(crate) fn owner(object: &Object) -> CompactString {
        format_compact!("{}/{}", object.key.namespace, object.key.name)
    }

    /// Notes what a stored Service has.
    pub(crate) fn note(&self, object: &Object) -> Vec<(Good, CompactString)> {
        let owner = Self::owner(object);
        let mut taken = self.taken.lock();
        let mut doubled = Vec::new();
        for good in goods(&object.value()) {
            match taken.get(&good) {
                Some(other) if *other != owner => doubled.push((good, other.clone())),
                _ => drop(taken.insert(good, owner.clone())),
            }
        }
        doubled
    }

    /// Gives back what a deleted Service had. Does nothing for other kinds.
    pub(crate) fn release(&self, resource: &Resource, object: &Object) {
        if resource.rules.claim.is_none() {
            return;
        }
        let owner = Self::owner(object);
        let mut taken = self.taken.lock();
        for good in goods(&object.value()) {
            if taken.get(&good).is_some_and(|o| *o == owner) {
                taken.remove(&good);
            }
        }
    }
}

/// What a Service says it has.
pub(crate) fn goods(service: &serde_json::Value) -> Vec<Good> {
    let addresses = list_at(service, "spec.clusterIPs").iter().filter_map(|a| a.as_str());
    let mut goods: Vec<Good> = addresses.filter_map(|a| a.parse().ok()).map(Good::Address).collect();
    if goods.is_empty() {
        goods.extend(text_at(service, "spec.clusterIP").parse().ok().map(Good::Address));
    }
    for port in list_at(service, "spec.ports") {
        if let Some(number) = port["nodePort"]
            .as_u64()
            .and_then(|n| u16::try_from(n).ok())
            .filter(|n| *n > 0)
        {
            goods.push(Good::Port(Protocol::of(text_at(port, "protocol")), number));
        }
    }
    if let Some(number) = service["spec"]["healthCheckNodePort"]
        .as_u64()
        .and_then(|n| u16::try_from(n).ok())
        .filter(|n| *n > 0)
    {
        goods.push(Good::Port(Protocol::Tcp, number));
    }
    goods
}

/// What one write has taken so far; given back when dropped, unless kept.
pub(crate) struct Claims<'a> {
    allocator: &'a Allocator,
    dice: &'a dyn Dice,
    taken: Vec<Good>,
    /// Given back when the write is kept: what the old state had and the new one has not.
    left: Vec<(Good, CompactString)>,
}

impl<'a> Claims<'a> {
    pub(crate) fn new(allocator: &'a Allocator, dice: &'a dyn Dice) -> Self {
        Self {
            allocator,
            dice,
            taken: Vec::new(),
            left: Vec::new(),
        }
    }

    pub(crate) fn ranges(&self) -> &[Cidr] {
        &self.allocator.ranges
    }

    /// Takes one certain good. False: somebody else has it.
    pub(crate) fn take(&mut self, good: Good, owner: &str) -> bool {
        let mut taken = self.allocator.taken.lock();
        match taken.get(&good) {
            Some(have) if have == owner => true,
            Some(_) => false,
            None => {
                taken.insert(good, owner.into());
                self.taken.push(good);
                true
            }
        }
    }

    /// Takes any free address of a range; `None` when it is full.
    pub(crate) fn take_address(&mut self, range: Cidr, owner: &str) -> Option<IpAddr> {
        let usable = range.usable();
        self.take_any(usable, reserved(usable), owner, |n| Good::Address(range.nth(n)))
            .and_then(|good| match good {
                Good::Address(address) => Some(address),
                Good::Port(..) => None,
            })
    }

    /// Takes any free node port; `None` when there is none.
    pub(crate) fn take_port(&mut self, protocol: Protocol, owner: &str) -> Option<u16> {
        let (first, last) = self.allocator.ports;
        let count = u64::from(last.saturating_sub(first)) + 1;
        let port = |n: u64| Good::Port(protocol, first + n as u16);
        self.take_any(count, reserved_ports(count), owner, port)
            .and_then(|good| match good {
                Good::Port(_, port) => Some(port),
                Good::Address(_) => None,
            })
    }

    /// From a random start in the upper part, all around it, then the lower part.
    fn take_any(&mut self, count: u64, low: u64, owner: &str, good: impl Fn(u64) -> Good) -> Option<Good> {
        let high = count - low;
        let start = self.dice.below(high.max(1));
        let mut taken = self.allocator.taken.lock();
        let order = (0..high).map(|i| low + (start + i) % high).chain(0..low);
        let free = order.map(good).find(|good| !taken.contains_key(good))?;
        taken.insert(free, owner.into());
        self.taken.push(free);
        Some(free)
    }

    pub(crate) fn in_port_range(&self, port: u16) -> bool {
        let (first, last) = self.allocator.ports;
        (first..=last).contains(&port)
    }

    pub(crate) fn port_range(&self) -> (u16, u16) {
        self.allocator.ports
    }

    pub(crate) fn range_of(&self, address: IpAddr) -> Option<Cidr> {
        self.allocator.ranges.iter().copied().find(|r| r.contains(address))
    }

    /// Says that the owner no longer has a good, once the write is done.
    pub(crate) fn leave(&mut self, good: Good, owner: &str) {
        self.left.push((good, owner.into()));
    }

    /// The write is done.
    pub(crate) fn keep(mut self) {
        self.taken.clear();
        let mut taken = self.allocator.taken.lock();
        for (good, owner) in self.left.drain(..) {
            if taken.get(&good).is_some_and(|o| *o == owner) {
                taken.remove(&good);
            }
        }
    }
}

impl Drop for Claims<'_> {
    fn drop(&mut self) {
        if self.taken.is_empty() {
            return;
        }
        let mut taken = self.allocator.taken.lock();
        for good in self.taken.drain(..) {
            taken.remove(&good);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::SystemDice;

    fn allocator(range: &str) -> Allocator {
        Allocator::new(&Network {
            service_ranges: vec![range.into()],
            node_ports: (30000, 30003),
            ..Network::default()
        })
        .unwrap()
    }

    #[test]
    fn a_range_gives_each_address_once_and_takes_it_back() {
        let allocator = allocator("10.0.0.0/29");
        let mut seen = Vec::new();
        for i in 0..6 {
            let mut claims = Claims::new(&allocator, &SystemDice);
            seen.push(claims.take_address(allocator.ranges[0], &format!("ns/{i}")).unwrap());
            claims.keep();
        }
        seen.sort();
        assert_eq!(
            seen.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"]
        );
        assert_eq!(
            Claims::new(&allocator, &SystemDice).take_address(allocator.ranges[0], "ns/x"),
            None
        );
    }

    #[test]
    fn a_dropped_claim_is_given_back() {
        let allocator = allocator("10.0.0.0/30");
        let address = "10.0.0.1".parse().map(Good::Address).unwrap();
        assert!(Claims::new(&allocator, &SystemDice).take(address, "a/a"));
        let mut claims = Claims::new(&allocator, &SystemDice);
        assert!(claims.take(address, "b/b"));
        claims.keep();
        assert!(!Claims::new(&allocator, &SystemDice).take(address, "a/a"));
        let mut again = Claims::new(&allocator, &SystemDice);
        assert!(again.take(address, "b/b"), "the owner may say it again");
        again.leave(address, "b/b");
        again.keep();
        assert!(Claims::new(&allocator, &SystemDice).take(address, "a/a"));
    }

    #[test]
    fn ranges_know_their_addresses() {
        let range = Cidr::parse("10.96.0.7/16").unwrap();
        assert_eq!(range.to_string(), "10.96.0.0/16");
        assert!(range.contains("10.96.0.1".parse().unwrap()) && range.contains("10.96.255.254".parse().unwrap()));
        for outside in ["10.96.0.0", "10.96.255.255", "10.97.0.1", "fd00::1"] {
            assert!(!range.contains(outside.parse().unwrap()), "{outside}");
        }
        assert!(Cidr::parse("fd00::/108").unwrap().contains("fd00::1".parse().unwrap()));
        assert!(Cidr::parse("10.0.0.0").is_err() && Cidr::parse("10.0.0.0/33").is_err());
    }
}
