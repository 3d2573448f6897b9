//! What the functions of the libraries cost, and the sizes of what they answer.

use super::{Arg, Estimate, Estimator, fixed};
use crate::ast::{Kind, Literal};
use crate::cost::{CHECK, LIST, PER_CHARACTER, PER_PATTERN_CHARACTER};
use crate::types::Type;

impl Estimator<'_> {
    /// What functions beyond the language cost, and the sizes of their results.
    pub(super) fn extension(
        &self,
        function: &str,
        overload: &str,
        target: Option<&Arg>,
        args: &[Arg],
    ) -> Option<(Estimate, Option<Estimate>)> {
        let listed = |factor: f64, size: Estimate| (size.by(factor).plus(fixed(1)).plus(fixed(LIST)), Some(size));
        let compared = |list: &Arg, of: &str| {
            let size = self.known(list);
            let text = of.starts_with("list_string_") || of.starts_with("list_bytes_");
            listed(if text { 2.0 + PER_CHARACTER } else { 2.0 }, size.times(size))
        };
        match (overload, target, args) {
            ("list_slice", Some(list), [from, to]) => {
                let size = self.known(list);
                let (from, to) = (self.whole(from.id, 0), self.whole(to.id, size.most));
                return Some(listed(1.0, fixed(to.saturating_sub(from))));
            }
            ("list_flatten", Some(list), []) => return Some(listed(1.0, self.known(list))),
            ("list_flatten_int", Some(list), [depth]) => {
                return Some(listed(self.whole(depth.id, u64::MAX) as f64, self.known(list)));
            }
            ("lists_range", _, [count]) => return Some(listed(1.0, fixed(self.whole(count.id, u64::MAX)))),
            ("list_reverse", Some(list), []) => return Some(listed(1.0, self.known(list))),
            ("list_distinct", Some(list), []) => {
                let size = self.known(list);
                return Some(listed(2.0, size.times(size)));
            }
            (sort, Some(list), []) if sort.ends_with("_sort") => return Some(compared(list, sort)),
            (sort, Some(_), [keys]) if sort.ends_with("_sortByAssociatedKeys") => return Some(compared(keys, sort)),
            (sets, _, [a, b]) if sets.starts_with("list_sets_") => {
                let factor = if sets == "list_sets_equivalent_list" { 2.0 } else { 1.0 };
                let product = self.known(a).times(self.known(b)).by(factor);
                return Some((product.plus(fixed(1)), None));
            }
            _ => {}
        }
        let walk = |arg: &Arg, factor: f64| (self.known(arg).by(factor), None);
        let addresses = Estimate { least: 4, most: 16 };
        Some(match (function, target, args) {
            ("check", ..) => (fixed(CHECK), None),
            ("fieldSelector" | "labelSelector", _, [text]) => {
                let length = self.known(text);
                let cost = length.by(PER_CHARACTER).plus(length.by(0.5).by(50.0));
                (cost.plus(fixed(LIST)), None)
            }
            (
                "serviceAccount" | "path" | "group" | "resource" | "subresource" | "namespace" | "name" | "allowed"
                | "reason" | "error" | "errored",
                ..,
            ) => (fixed(1), None),
            ("isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf", Some(target), _) => {
                match self.element(target) {
                    Some((of, size)) => {
                        let mut each = fixed(1);
                        if matches!(of, Type::String | Type::Bytes) {
                            each = each.plus(size.by(PER_CHARACTER));
                        }
                        (self.known(target).times(each), None)
                    }
                    None => walk(target, PER_CHARACTER),
                }
            }
            ("url" | "jsonpatch.escapeKey", _, [text]) => (self.known(text).by(PER_CHARACTER), Some(self.known(text))),
            ("lowerAscii" | "upperAscii" | "substring" | "trim", Some(text), _) => {
                (self.known(text).by(PER_CHARACTER), Some(self.known(text)))
            }
            ("replace", Some(text), [from, to, ..]) => self.replaced(text, from, to),
            ("split", Some(text), _) => {
                let size = self.known(text);
                let most = match args.get(1).map(|limit| self.kind(limit.id)) {
                    Some(Kind::Literal(Literal::Int(limit))) => *limit as u64,
                    _ => size.most,
                };
                (size.by(2.0 * PER_CHARACTER), Some(Estimate { least: 0, most }))
            }
            ("join", Some(list), _) => {
                let count = self.known(list);
                let mut size = match self.element(list) {
                    Some((_, each)) => count.times(each),
                    None => fixed(0),
                };
                if let Some(separator) = args.first() {
                    let gaps = Estimate {
                        least: count.least.saturating_sub(1),
                        most: count.most.saturating_sub(1),
                    };
                    size = size.plus(self.known(separator).times(gaps));
                }
                (size.by(PER_CHARACTER), Some(size))
            }
            ("find" | "findAll", Some(text), [pattern, ..]) => {
                let size = self.known(text);
                let cost = size.plus(fixed(1)).by(PER_CHARACTER);
                let pattern = self.known(pattern).by(PER_PATTERN_CHARACTER);
                let found = Estimate {
                    least: 0,
                    most: size.most,
                };
                (cost.times(pattern), Some(found))
            }
            ("ip", ..) if overload == "cidr_ip" => (fixed(1), None),
            ("cidr" | "isIP" | "isCIDR" | "ip" | "quantity" | "isQuantity" | "semver" | "isSemver", _, [text, ..]) => {
                walk(text, PER_CHARACTER)
            }
            ("ip.isCanonical", _, [text]) => walk(text, 2.0 * PER_CHARACTER),
            (
                "masked"
                | "prefixLength"
                | "family"
                | "isUnspecified"
                | "isLoopback"
                | "isLinkLocalMulticast"
                | "isLinkLocalUnicast"
                | "isGlobalUnicast"
                | "format.named"
                | "sign"
                | "asInteger"
                | "isInteger"
                | "asApproximateFloat"
                | "isGreaterThan"
                | "isLessThan"
                | "compareTo"
                | "add"
                | "sub"
                | "major"
                | "minor"
                | "patch"
                | "getScheme"
                | "getHostname"
                | "getHost"
                | "getPort"
                | "getEscapedPath"
                | "getQuery",
                ..,
            ) => (fixed(1), None),
            ("containsIP" | "containsCIDR", _, [other, ..]) => {
                let mut cost = addresses.plus(addresses).by(PER_CHARACTER);
                if function == "containsCIDR" {
                    cost = cost.plus(addresses.by(PER_CHARACTER)).plus(fixed(1));
                }
                if overload.ends_with("_string") {
                    cost = cost.plus(self.known(other).by(PER_CHARACTER));
                }
                (cost, None)
            }
            ("validate", _, [text]) => {
                let cost = self.known(text).by(PER_CHARACTER).by(128.0 * PER_PATTERN_CHARACTER);
                (cost, None)
            }
            ("_==_", None, [left, right]) if self.ty(left.id) == self.ty(right.id) => match self.ty(left.id) {
                Type::Opaque(name, _) if matches!(&**name, "net.IP" | "net.CIDR") => (fixed(1), None),
                Type::Struct(name) => match &**name {
                    "kubernetes.NamedFormat" => (Estimate { least: 1, most: 64 }.by(PER_CHARACTER), None),
                    "kubernetes.URL" => {
                        let most = right.size.map_or(1, |size| size.most);
                        (Estimate { least: 1, most }.by(PER_CHARACTER), None)
                    }
                    name if name.starts_with("kubernetes.") => (fixed(1), None),
                    _ => return None,
                },
                _ => return None,
            },
            _ => return None,
        })
    }

    /// `replace`: the shortest and the longest text that can come of it.
    fn replaced(&self, text: &Arg, from: &Arg, to: &Arg) -> (Estimate, Option<Estimate>) {
        let (size, from, to) = (self.known(text), self.known(from), self.known(to));
        let (mut count, mut kept) = (fixed(0), fixed(0));
        if from.least == 0 {
            count.most = size.most.saturating_add(1);
            kept.most = size.most;
        } else if to.most <= from.least {
            kept.most = size.most;
        } else {
            count.most = (size.most as f64 / from.least as f64).ceil() as u64;
        }
        if from.most == 0 {
            count.least = size.least.saturating_add(1);
            kept.least = size.least;
        } else if from.most <= to.least {
            kept.least = size.least;
        } else {
            count.least = (size.least as f64 / from.most as f64).ceil() as u64;
        }
        (size.by(2.0 * PER_CHARACTER), Some(count.times(to).plus(kept)))
    }
}
