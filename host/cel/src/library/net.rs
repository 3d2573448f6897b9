//! IP addresses and CIDR ranges.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::kubernetes::Kube;
use super::{Answer, Run};
use crate::eval::{Fault, Machine};
use crate::value::Val;

type M<'a, 'v> = Machine<'a, 'v>;

fn text<'v>(val: Option<&'v Val<'_>>) -> Result<&'v str, Fault> {
    match val {
        Some(Val::Text(text)) => Ok(text),
        _ => Err(Fault::no_overload()),
    }
}

fn parse(text: &str) -> Result<IpAddr, Fault> {
    if let Some((_, zone)) = text.split_once('%')
        && !zone.is_empty()
    {
        return Err(Fault::new(format!(
            "IP address {text:?} with zone value is not allowed"
        )));
    }
    let ip: IpAddr = text.parse().map_err(|_| {
        Fault::new(format!(
            "IP Address {text:?} parse error during conversion from string: ParseAddr({text:?}): unable to parse IP"
        ))
    })?;
    match ip {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            Err(Fault::new(format!("IPv4-mapped IPv6 address {text:?} is not allowed")))
        }
        ip => Ok(ip),
    }
}

fn parse_range(text: &str) -> Result<(IpAddr, u8), Fault> {
    let wrong = || {
        Fault::new(format!(
            "network address parse error during conversion from string: network address parse error during conversion from string: netip.ParsePrefix({text:?}): no '/'"
        ))
    };
    let (ip, bits) = text.split_once('/').ok_or_else(wrong)?;
    let ip: IpAddr = ip.parse().map_err(|_| wrong())?;
    if bits.is_empty() || bits.len() > 1 && bits.starts_with('0') || !bits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    let bits: u8 = bits.parse().map_err(|_| wrong())?;
    match ip {
        IpAddr::V4(_) if bits > 32 => Err(wrong()),
        IpAddr::V6(_) if bits > 128 => Err(wrong()),
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            Err(Fault::new(format!("IPv4-mapped IPv6 address {text:?} is not allowed")))
        }
        ip => Ok((ip, bits)),
    }
}

fn mask(ip: IpAddr, bits: u8) -> IpAddr {
    match ip {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            Ipv4Addr::from_bits(v4.to_bits() & mask).into()
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            Ipv6Addr::from_bits(v6.to_bits() & mask).into()
        }
    }
}

fn holds((range, bits): (IpAddr, u8), ip: IpAddr) -> bool {
    range.is_ipv4() == ip.is_ipv4() && mask(range, bits) == mask(ip, bits)
}

pub(super) fn ip<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    match args.first() {
        Some(Val::Kube(Kube::Cidr(ip, _))) => Ok(Val::Kube(Kube::Ip(*ip))),
        other => Ok(Val::Kube(Kube::Ip(parse(text(other)?)?))),
    }
}

pub(super) fn is_ip<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    Ok(Val::Bool(parse(text(args.first())?).is_ok()))
}

pub(super) fn is_canonical<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    let text = text(args.first())?;
    Ok(Val::Bool(parse(text)?.to_string() == text))
}

fn address(args: &[Val<'_>]) -> Result<IpAddr, Fault> {
    match args.first() {
        Some(Val::Kube(Kube::Ip(ip))) => Ok(*ip),
        _ => Err(Fault::no_overload()),
    }
}

pub(super) fn about(name: &str) -> Run {
    match name {
        "family" => |_, args| Ok(Val::Int(if address(args)?.is_ipv4() { 4 } else { 6 })),
        "isUnspecified" => |_, args| Ok(Val::Bool(address(args)?.is_unspecified())),
        "isLoopback" => |_, args| Ok(Val::Bool(address(args)?.is_loopback())),
        "isLinkLocalMulticast" => |_, args| Ok(Val::Bool(is_link_local_multicast(address(args)?))),
        "isLinkLocalUnicast" => |_, args| Ok(Val::Bool(is_link_local(address(args)?))),
        _ => |_, args| {
            let ip = address(args)?;
            let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
            let special = ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || is_link_local(ip);
            Ok(Val::Bool(!special && !broadcast))
        },
    }
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

fn is_link_local_multicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.octets()[..3] == [224, 0, 0],
        IpAddr::V6(v6) => v6.segments()[0] & 0xff0f == 0xff02,
    }
}

pub(super) fn cidr<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    let (ip, bits) = parse_range(text(args.first())?)?;
    Ok(Val::Kube(Kube::Cidr(ip, bits)))
}

pub(super) fn is_cidr<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    Ok(Val::Bool(parse_range(text(args.first())?).is_ok()))
}

fn range(val: Option<&Val<'_>>) -> Result<(IpAddr, u8), Fault> {
    match val {
        Some(Val::Kube(Kube::Cidr(ip, bits))) => Ok((*ip, *bits)),
        _ => Err(Fault::no_overload()),
    }
}

pub(super) fn contains_ip<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    let ip = match args.get(1) {
        Some(Val::Kube(Kube::Ip(ip))) => *ip,
        other => parse(text(other)?)?,
    };
    Ok(Val::Bool(holds(range(args.first())?, ip)))
}

pub(super) fn contains_cidr<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    let (outer, bits) = range(args.first())?;
    let (inner, inner_bits) = match args.get(1) {
        Some(Val::Text(text)) => parse_range(text)?,
        other => range(other)?,
    };
    Ok(Val::Bool(bits <= inner_bits && holds((outer, bits), inner)))
}

pub(super) fn prefix_length<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    Ok(Val::Int(range(args.first())?.1.into()))
}

pub(super) fn masked<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    let (ip, bits) = range(args.first())?;
    Ok(Val::Kube(Kube::Cidr(mask(ip, bits), bits)))
}
