//! Kubernetes' own types as values: quantities, named formats, and what they share with addresses, URLs and versions.

use std::cmp::Ordering;
use std::net::IpAddr;
use std::sync::Arc;

use model::{Quantity, text};

use super::authorizer::{Check, Ruling};
use super::semver::Semver;
use super::url::Url;
use super::{Answer, Run};
use crate::cost;
use crate::eval::{Fault, Machine};
use crate::value::Val;

type M<'a, 'v> = Machine<'a, 'v>;

#[derive(Debug, Clone)]
pub enum Kube {
    Quantity(Quantity),
    Ip(IpAddr),
    /// An address and how many of its bits count.
    Cidr(IpAddr, u8),
    Url(Arc<Url>),
    Semver(Arc<Semver>),
    Format(Format),
    Authorizer(Arc<Check>),
    PathCheck(Arc<Check>),
    GroupCheck(Arc<Check>),
    ResourceCheck(Arc<Check>),
    Decision(Arc<Ruling>),
}

/// A format that values can be held against.
#[derive(Debug, Clone, Copy)]
pub struct Format {
    pub name: &'static str,
    check: fn(&str) -> Vec<String>,
}

impl Kube {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Kube::Quantity(_) => "kubernetes.Quantity",
            Kube::Ip(_) => "net.IP",
            Kube::Cidr(..) => "net.CIDR",
            Kube::Url(_) => "kubernetes.URL",
            Kube::Semver(_) => "kubernetes.Semver",
            Kube::Format(_) => "kubernetes.NamedFormat",
            Kube::Authorizer(_) => "kubernetes.authorization.Authorizer",
            Kube::PathCheck(_) => "kubernetes.authorization.PathCheck",
            Kube::GroupCheck(_) => "kubernetes.authorization.GroupCheck",
            Kube::ResourceCheck(_) => "kubernetes.authorization.ResourceCheck",
            Kube::Decision(_) => "kubernetes.authorization.Decision",
        }
    }

    pub(crate) fn show(&self) -> String {
        match self {
            Kube::Quantity(quantity) => quantity.to_string(),
            Kube::Ip(ip) => ip.to_string(),
            Kube::Cidr(ip, bits) => format!("{ip}/{bits}"),
            Kube::Url(url) => url.text.clone(),
            Kube::Semver(version) => version.to_string(),
            Kube::Format(format) => format.name.to_owned(),
            other => other.name().to_owned(),
        }
    }

    pub(crate) fn equals(&self, other: &Kube) -> bool {
        match (self, other) {
            (Kube::Quantity(a), Kube::Quantity(b)) => a == b,
            (Kube::Ip(a), Kube::Ip(b)) => a == b,
            (Kube::Cidr(a, m), Kube::Cidr(b, n)) => a == b && m == n,
            (Kube::Url(a), Kube::Url(b)) => a.text == b.text,
            (Kube::Semver(a), Kube::Semver(b)) => a.compare(b) == Ordering::Equal,
            (Kube::Format(a), Kube::Format(b)) => a.name == b.name,
            (Kube::Decision(a), Kube::Decision(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }

    /// What costs reckon with, in bytes.
    pub(crate) fn size(&self) -> u64 {
        match self {
            Kube::Ip(IpAddr::V4(_)) => 4,
            Kube::Ip(IpAddr::V6(_)) => 16,
            Kube::Cidr(_, bits) => u64::from(*bits).div_ceil(8),
            _ => 1,
        }
    }

    pub(crate) fn pattern_size(&self) -> u64 {
        match self {
            Kube::Format(format) => cost::format_pattern_size(format.name),
            _ => 1,
        }
    }
}

fn quantity_of(val: Option<&Val<'_>>) -> Result<Quantity, Fault> {
    match val {
        Some(Val::Kube(Kube::Quantity(quantity))) => Ok(*quantity),
        _ => Err(Fault::no_overload()),
    }
}

fn text_of<'v>(val: Option<&'v Val<'_>>) -> Result<&'v str, Fault> {
    match val {
        Some(Val::Text(text)) => Ok(text),
        _ => Err(Fault::no_overload()),
    }
}

pub(super) fn quantity<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    let text = text_of(args.first())?;
    Quantity::normalize(text).map_err(Fault::new)?;
    let quantity = Quantity::parse(text).map_err(|failure| Fault::new(failure.to_string()))?;
    Ok(Val::Kube(Kube::Quantity(quantity)))
}

pub(super) fn is_quantity<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    Ok(Val::Bool(Quantity::parse(text_of(args.first())?).is_ok()))
}

fn order(args: &[Val<'_>]) -> Result<Ordering, Fault> {
    match (&args[0], &args[1]) {
        (Val::Kube(Kube::Quantity(a)), Val::Kube(Kube::Quantity(b))) => Ok(a.cmp(b)),
        (Val::Kube(Kube::Semver(a)), Val::Kube(Kube::Semver(b))) => Ok(a.compare(b)),
        _ => Err(Fault::no_overload()),
    }
}

pub(super) fn greater<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    Ok(Val::Bool(order(args)?.is_gt()))
}

pub(super) fn less<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    Ok(Val::Bool(order(args)?.is_lt()))
}

pub(super) fn compare<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    Ok(Val::Int(order(args)? as i64))
}

pub(super) fn sign<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    Ok(Val::Int(quantity_of(args.first())?.cmp(&Quantity::ZERO) as i64))
}

pub(super) fn as_float<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    Ok(Val::Double(quantity_of(args.first())?.nanos() as f64 / 1e9))
}

fn whole(quantity: Quantity) -> Option<i64> {
    let nanos = quantity.nanos();
    (nanos % 1_000_000_000 == 0)
        .then(|| i64::try_from(nanos / 1_000_000_000).ok())
        .flatten()
}

pub(super) fn is_integer<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    Ok(Val::Bool(whole(quantity_of(args.first())?).is_some()))
}

pub(super) fn as_integer<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    whole(quantity_of(args.first())?)
        .map(Val::Int)
        .ok_or_else(|| Fault::new("cannot convert value to integer"))
}

fn operand(args: &[Val<'_>]) -> Result<(Quantity, Quantity), Fault> {
    let left = quantity_of(args.first())?;
    let right = match args.get(1) {
        Some(Val::Int(number)) => Quantity::from_whole(*number, left.format()),
        other => quantity_of(other)?,
    };
    Ok((left, right))
}

pub(super) fn plus<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    let (left, right) = operand(args)?;
    Ok(Val::Kube(Kube::Quantity(left + right)))
}

pub(super) fn minus<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    let (left, right) = operand(args)?;
    Ok(Val::Kube(Kube::Quantity(left - right)))
}

fn one(holds: bool, says: &str) -> Vec<String> {
    if holds { Vec::new() } else { vec![says.to_owned()] }
}

/// A prefix may end in a dash that the name after it hides.
fn prefix(text: &str, check: fn(&str) -> Vec<String>) -> Vec<String> {
    match text.strip_suffix('-').filter(|rest| !rest.is_empty()) {
        Some(rest) => check(&format!("{rest}a")),
        None => check(text),
    }
}

const FORMATS: [(&str, Format); 13] = [
    ("dns1123Label", named_as("DNS1123Label", text::dns1123_label)),
    (
        "dns1123Subdomain",
        named_as("DNS1123Subdomain", text::dns1123_subdomain),
    ),
    ("dns1035Label", named_as("DNS1035Label", text::dns1035_label)),
    ("qualifiedName", named_as("QualifiedName", text::qualified_name)),
    (
        "dns1123LabelPrefix",
        named_as("DNS1123LabelPrefix", |t| prefix(t, text::dns1123_label)),
    ),
    (
        "dns1123SubdomainPrefix",
        named_as("DNS1123SubdomainPrefix", |t| prefix(t, text::dns1123_subdomain)),
    ),
    (
        "dns1035LabelPrefix",
        named_as("DNS1035LabelPrefix", |t| prefix(t, text::dns1035_label)),
    ),
    ("labelValue", named_as("LabelValue", text::label_value)),
    ("uri", named_as("URI", |t| Url::parse(t).err().into_iter().collect())),
    (
        "uuid",
        named_as("uuid", |t| one(is_uuid(t), "does not match the UUID format")),
    ),
    (
        "byte",
        named_as("byte", |t| one(super::standard::base64(t).is_some(), "invalid base64")),
    ),
    (
        "date",
        named_as("date", |t| one(t.parse::<jiff::civil::Date>().is_ok(), "invalid date")),
    ),
    (
        "datetime",
        named_as("datetime", |t| one(model::time::parse(t).is_ok(), "invalid datetime")),
    ),
];

const fn named_as(name: &'static str, check: fn(&str) -> Vec<String>) -> Format {
    Format { name, check }
}

fn is_uuid(text: &str) -> bool {
    let mut rest = text;
    for (at, length) in [8, 4, 4, 4, 12].into_iter().enumerate() {
        if at > 0 {
            rest = rest.strip_prefix('-').unwrap_or(rest);
        }
        let Some(digits) = rest.get(..length) else { return false };
        if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return false;
        }
        rest = &rest[length..];
    }
    rest.is_empty()
}

/// `format.dns1123Label()` and the like. The name is known from the table, so the function can be picked by it.
pub(super) fn format_of(name: &str) -> Run {
    macro_rules! pick {
        ($($at:literal $name:literal),*) => {
            match name {
                $($name => |_, _| Ok(Val::Kube(Kube::Format(FORMATS[$at].1))),)*
                _ => |_, _| Err(Fault::no_overload()),
            }
        };
    }
    pick!(
        0 "dns1123Label", 1 "dns1123Subdomain", 2 "dns1035Label", 3 "qualifiedName", 4 "dns1123LabelPrefix",
        5 "dns1123SubdomainPrefix", 6 "dns1035LabelPrefix", 7 "labelValue", 8 "uri", 9 "uuid", 10 "byte", 11 "date",
        12 "datetime"
    )
}

pub(super) fn named<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    let name = text_of(args.first())?;
    let found = FORMATS.iter().find(|(known, _)| *known == name);
    Ok(match found {
        Some((_, format)) => Val::some(Val::Kube(Kube::Format(*format))),
        None => Val::Optional(None),
    })
}

pub(super) fn validate<'a>(_: &M<'a, '_>, args: &[Val<'a>]) -> Answer<'a> {
    let Some(Val::Kube(Kube::Format(format))) = args.first() else {
        return Err(Fault::no_overload());
    };
    let wrong = (format.check)(text_of(args.get(1))?);
    if wrong.is_empty() {
        return Ok(Val::Optional(None));
    }
    Ok(Val::some(Val::list(wrong.into_iter().map(Val::text).collect())))
}
