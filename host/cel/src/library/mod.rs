//! What functions do. Their types stand in `functions.txt`; here each takes what it gets or says `no such overload`.

pub(crate) mod authorizer;
pub(crate) mod kubernetes;
mod lists;
mod net;
mod semver;
pub(crate) mod standard;
mod strings;
pub(crate) mod time;
mod url;

use crate::eval::{Fault, Machine};
use crate::value::Val;

pub(crate) type Answer<'a> = Result<Val<'a>, Fault>;

pub(crate) type Run = for<'a, 'v, 'm> fn(&'m Machine<'a, 'v>, &[Val<'a>]) -> Answer<'a>;

/// The function behind a name of the table.
pub(crate) fn run_of(name: &str) -> Run {
    match name {
        "_+_" => standard::add,
        "_-_" => standard::subtract,
        "_*_" => standard::multiply,
        "_/_" => standard::divide,
        "_%_" => standard::modulo,
        "-_" => standard::negate,
        "!_" => standard::not,
        "_<_" => standard::less,
        "_<=_" => standard::less_equals,
        "_>_" => standard::greater,
        "_>=_" => standard::greater_equals,
        "@in" => standard::contains_in,
        "size" => standard::size,
        "type" => standard::type_of,
        "dyn" => standard::dynamic,
        "bool" => standard::to_bool,
        "bytes" => standard::to_bytes,
        "double" => standard::to_double,
        "int" => standard::to_int,
        "uint" => standard::to_uint,
        "string" => standard::to_string,
        "duration" => time::to_duration,
        "timestamp" => time::to_timestamp,
        "optional.of" => standard::some,
        "optional.ofNonZeroValue" => standard::some_nonzero,
        "optional.none" => standard::none,
        "value" => standard::value,
        "hasValue" => standard::has_value,
        "or" | "orValue" => standard::or_value,
        "cel.@mapInsert" => standard::insert,
        "getFullYear" | "getMonth" | "getDayOfYear" | "getDayOfMonth" | "getDate" | "getDayOfWeek" | "getHours"
        | "getMinutes" | "getSeconds" | "getMilliseconds" => time::getter(name),
        "contains" => strings::contains,
        "endsWith" => strings::ends_with,
        "startsWith" => strings::starts_with,
        "matches" => strings::matches,
        "find" => strings::find,
        "findAll" => strings::find_all,
        "charAt" => strings::char_at,
        "indexOf" => strings::index_of,
        "lastIndexOf" => strings::last_index_of,
        "lowerAscii" => strings::lower,
        "upperAscii" => strings::upper,
        "replace" => strings::replace,
        "split" => strings::split,
        "substring" => strings::substring,
        "trim" => strings::trim,
        "join" => strings::join,
        "format" => strings::format,
        "strings.quote" => strings::quote,
        "jsonpatch.escapeKey" => strings::escape_key,
        "sets.contains" => lists::set_contains,
        "sets.equivalent" => lists::set_equivalent,
        "sets.intersects" => lists::set_intersects,
        "slice" => lists::slice,
        "flatten" => lists::flatten,
        "lists.range" => lists::range,
        "reverse" => lists::reverse,
        "distinct" => lists::distinct,
        "sort" => lists::sort,
        "@sortByAssociatedKeys" => lists::sort_by_keys,
        "isSorted" => lists::is_sorted,
        "sum" => lists::sum,
        "min" => lists::min,
        "max" => lists::max,
        "first" => lists::first,
        "last" => lists::last,
        "optional.unwrap" | "unwrapOpt" => lists::unwrap,
        "isGreaterThan" => kubernetes::greater,
        "isLessThan" => kubernetes::less,
        "compareTo" => kubernetes::compare,
        "quantity" => kubernetes::quantity,
        "isQuantity" => kubernetes::is_quantity,
        "sign" => kubernetes::sign,
        "asApproximateFloat" => kubernetes::as_float,
        "asInteger" => kubernetes::as_integer,
        "isInteger" => kubernetes::is_integer,
        "add" => kubernetes::plus,
        "sub" => kubernetes::minus,
        "semver" => semver::parse,
        "isSemver" => semver::is_semver,
        "major" | "minor" | "patch" => semver::part(name),
        "validate" => kubernetes::validate,
        "format.named" => kubernetes::named,
        "url" => url::parse,
        "isURL" => url::is_url,
        "getScheme" | "getHost" | "getHostname" | "getPort" | "getEscapedPath" | "getQuery" => url::part(name),
        "ip" => net::ip,
        "isIP" => net::is_ip,
        "ip.isCanonical" => net::is_canonical,
        "family"
        | "isUnspecified"
        | "isLoopback"
        | "isLinkLocalMulticast"
        | "isLinkLocalUnicast"
        | "isGlobalUnicast" => net::about(name),
        "cidr" => net::cidr,
        "isCIDR" => net::is_cidr,
        "containsIP" => net::contains_ip,
        "containsCIDR" => net::contains_cidr,
        "prefixLength" => net::prefix_length,
        "masked" => net::masked,
        name => match name.strip_prefix("format.") {
            Some(format) => kubernetes::format_of(format),
            None => authorizer::step(name),
        },
    }
}
