//! What a call costs at run time: by the size of what it is given, as cel-go and Kubernetes' libraries count.

use crate::ast::{Id, Kind, Literal};
use crate::program::Program;
use crate::value::Val;

/// Per character that is walked.
pub(crate) const PER_CHARACTER: f64 = 0.1;
/// Per character of a regular expression: one state in about four.
pub(crate) const PER_PATTERN_CHARACTER: f64 = 0.25;
/// For an authorization check: two of them fit into one expression.
pub(crate) const CHECK: u64 = 350_000;
pub(crate) const LIST: u64 = 10;

/// The longest regular expression behind a named format, by its name.
pub(crate) fn format_pattern_size(name: &str) -> u64 {
    match name {
        "DNS1123Label" | "DNS1035Label" | "DNS1123LabelPrefix" | "DNS1035LabelPrefix" => 30,
        "DNS1123Subdomain" | "DNS1123SubdomainPrefix" | "QualifiedName" => 60,
        "LabelValue" => 40,
        "URI" => 1103,
        "uuid" => 70,
        "byte" => 84,
        _ => 71,
    }
}

fn walk(size: u64, factor: f64) -> u64 {
    (size as f64 * factor).ceil() as u64
}

fn size(val: &Val<'_>) -> u64 {
    match val {
        Val::Optional(Some(inner)) => size(inner),
        Val::Kube(of) => of.size(),
        other => other.size().unwrap_or(1),
    }
}

/// Walking a value as a tree.
fn tree(val: &Val<'_>) -> u64 {
    match val {
        Val::Text(text) => (text.len() as f64 * PER_CHARACTER) as u64,
        Val::Bytes(bytes) => (bytes.len() as f64 * PER_CHARACTER) as u64,
        Val::List(list) => list.iter().flatten().map(|item| tree(&item)).sum(),
        Val::Map(map) => map
            .keys()
            .iter()
            .map(|key| tree(&key.val()) + map.get(key).ok().flatten().map_or(0, |val| tree(&val)))
            .sum(),
        _ => 1,
    }
}

fn selector(length: u64) -> u64 {
    LIST + walk(length, PER_CHARACTER) + walk(walk(length, 0.5), 50.0)
}

/// `overloads`: those that were still possible when it was checked.
pub(crate) fn of_call(name: &str, overloads: &[&str], args: &[Val<'_>], result: Option<&Val<'_>>) -> u64 {
    let overload = match overloads {
        [one] => *one,
        _ => "",
    };
    let arg = |at: usize| args.get(at).map_or(1, size);
    let listed = |factor: f64, count: u64| (count as f64 * factor) as u64 + 1 + LIST;
    match overload {
        "list_slice" | "lists_range" | "list_reverse" => return listed(1.0, result.map_or(1, size)),
        "list_flatten" => return listed(1.0, arg(0)),
        "list_flatten_int" => {
            let depth = match args.get(1) {
                Some(Val::Int(depth)) => *depth as f64,
                _ => 1.0,
            };
            return listed(depth, arg(0));
        }
        "list_distinct" => return compared(args.first()),
        _ if overload.ends_with("_sort") => return compared(args.first()),
        _ if overload.ends_with("_sortByAssociatedKeys") => return compared(args.get(1)),
        _ if overload.starts_with("list_sets_") => {
            let factor = if overload == "list_sets_equivalent_list" {
                2.0
            } else {
                1.0
            };
            return 1 + ((arg(0) * arg(1)) as f64 * factor) as u64;
        }
        _ => {}
    }
    match name {
        "check" => return CHECK,
        "fieldSelector" | "labelSelector" => return selector(arg(1)),
        "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => return args.first().map_or(0, tree),
        "url" | "lowerAscii" | "upperAscii" | "substring" | "trim" | "jsonpatch.escapeKey" => {
            return walk(arg(0), PER_CHARACTER);
        }
        "replace" | "split" => return walk(arg(0), 2.0 * PER_CHARACTER),
        "join" => return walk(result.map_or(1, size), 2.0 * PER_CHARACTER),
        "find" | "findAll" => return walk(1 + arg(0), PER_CHARACTER) * walk(arg(1), PER_PATTERN_CHARACTER),
        "ip" if overload == "cidr_ip" => return 1,
        "cidr" | "isIP" | "isCIDR" | "ip" | "quantity" | "isQuantity" | "semver" | "isSemver" => {
            return walk(arg(0), PER_CHARACTER);
        }
        "ip.isCanonical" => return walk(arg(0), 2.0 * PER_CHARACTER),
        "containsIP" => {
            let parse = if overload == "cidr_contains_ip_string" {
                walk(arg(1), PER_CHARACTER)
            } else {
                0
            };
            return walk(2 * arg(0), PER_CHARACTER) + parse;
        }
        "containsCIDR" => {
            let parse = if overload == "cidr_contains_cidr_string" {
                walk(arg(1), PER_CHARACTER)
            } else {
                0
            };
            return walk(2 * arg(0), PER_CHARACTER) + walk(arg(0), PER_CHARACTER) + 1 + parse;
        }
        "validate" => {
            if let Some(Val::Kube(of)) = args.first() {
                return walk(1 + arg(1), PER_CHARACTER) * walk(of.pattern_size(), PER_PATTERN_CHARACTER);
            }
        }
        "_==_" if matches!(args.first(), Some(Val::Kube(_))) => return 1,
        _ => {}
    }
    match (name, overload) {
        (
            _,
            "starts_with_string" | "ends_with_string" | "string_to_bytes" | "bytes_to_string" | "strings_quote"
            | "string_format",
        ) => walk(arg(0), PER_CHARACTER),
        (_, "in_list") => arg(1),
        ("_==_" | "_!=_", _) => walk(arg(0).min(arg(1)), PER_CHARACTER),
        (_, overload) if is_ordering(overload) => walk(arg(0).min(arg(1)), PER_CHARACTER),
        (_, "add_string" | "add_bytes") => walk(arg(0) + arg(1), PER_CHARACTER),
        (_, "matches_string") => walk(1 + arg(0), PER_CHARACTER) * walk(arg(1), PER_PATTERN_CHARACTER),
        (_, "contains_string") => walk(arg(0), PER_CHARACTER) * walk(arg(1), PER_CHARACTER),
        _ => 1,
    }
}

/// `<` and the like of texts or bytes.
pub(crate) fn is_ordering(overload: &str) -> bool {
    let ends = |of: &str| overload.strip_suffix(of);
    matches!(
        ends("_string").or_else(|| ends("_bytes")),
        Some("less" | "greater" | "less_equals" | "greater_equals")
    )
}

/// Each element compared with each.
fn compared(list: Option<&Val<'_>>) -> u64 {
    let Some(Val::List(list)) = list else { return 1 };
    let count = list.len() as u64;
    let factor = match list.get(0) {
        Some(Ok(Val::Text(_) | Val::Bytes(_))) => 2.0 + PER_CHARACTER,
        _ => 2.0,
    };
    ((count * count) as f64 * factor) as u64 + 1 + LIST
}

/// A list of constants that are looked up rather than searched.
pub(crate) fn is_set(program: &Program, id: Id) -> bool {
    match program.checked.tree.kind(id) {
        Kind::List(items) => {
            program.constants.contains_key(&id)
                && items.iter().all(|(item, _)| {
                    matches!(
                        program.checked.tree.kind(*item),
                        Kind::Literal(
                            Literal::Bool(_)
                                | Literal::Int(_)
                                | Literal::Uint(_)
                                | Literal::Double(_)
                                | Literal::Text(_)
                        )
                    )
                })
        }
        _ => false,
    }
}
