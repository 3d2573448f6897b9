//! ResourceSlice: devices that a driver offers, a part of a pool. Drivers write it, the scheduler reads it.

use jiff::Timestamp;
use model::{Cause, text};
use serde_json::Value;

use crate::resource::Resource;
use crate::resources::check::At;
use crate::resources::common::{child, default, each_mut};
use crate::resources::csidriver::driver_name;
use crate::resources::resourceclaim::attribute_name;
use crate::table::{Column, list_at};

const MOST_DEVICES: usize = 128;
/// With taints or shared counters a device costs more to place.
const MOST_RICH_DEVICES: usize = 64;
const MOST_ATTRIBUTES: usize = 32;
const MOST_TAINTS: usize = 16;
const MOST_COUNTER_SETS: usize = 8;
const MOST_COUNTERS: usize = 32;
const LONGEST_VALUE: usize = 64;

pub(crate) fn resource() -> Resource {
    Resource::cluster("resource.k8s.io", "v1", "ResourceSlice", "resourceslices")
        .selectable(&["spec.nodeName", "spec.driver"])
        .columns(vec![
            Column::text_or("Node", "spec.nodeName", "<unset>").about("The node that has the devices."),
            Column::text_or("Driver", "spec.driver", "").about("Who offers them."),
            Column::text_or("Pool", "spec.pool.name", "").about("What they belong to."),
            Column::age(),
        ])
        .stamp(stamp)
        .validate(validate)
}

/// When a taint was put on a device.
fn stamp(new: &mut Value, _old: Option<&Value>, now: Timestamp) {
    for device in each_mut(child(new, "spec"), "devices") {
        for taint in each_mut(device, "taints") {
            default(taint, "timeAdded", model::time::seconds(now));
        }
    }
}

fn validate(new: &Value, old: Option<&Value>, wrong: &mut Vec<Cause>) {
    let mut spec = At::new(&new["spec"], "spec", wrong);
    spec.with("driver", driver_name);
    if spec.need("pool.name", "") {
        for part in spec.text("pool.name").split('/') {
            spec.under("pool.name").fits(|_| text::dns1123_subdomain(part));
        }
    }
    if spec.int("pool.resourceSliceCount").unwrap_or(0) <= 0 {
        let count = spec.int("pool.resourceSliceCount").unwrap_or(0);
        spec.push(Cause::invalid(
            "spec.pool.resourceSliceCount",
            count,
            "must be greater than zero",
        ));
    }
    if spec.int("pool.generation").is_some_and(|n| n < 0) {
        spec.under("pool.generation")
            .invalid("must be greater than or equal to zero");
    }
    if let Some(old) = old {
        for key in ["pool.name", "driver", "nodeName"] {
            spec.immutable(key, &old["spec"]);
        }
    }
    where_it_is(&mut spec);
    if spec.has("sharedCounters") && spec.has("devices") {
        spec.push(Cause::invalid(
            "spec",
            "\"\"",
            "only one of `sharedCounters` or `devices` is allowed",
        ));
    }
    let rich =
        |device: &Value| !list_at(device, "taints").is_empty() || !list_at(device, "consumesCounters").is_empty();
    let most = match spec.list("devices").iter().any(rich) {
        true => MOST_RICH_DEVICES,
        false => MOST_DEVICES,
    };
    let count = spec.list("devices").len();
    if count > most {
        spec.under("devices").too_many(count, most);
    }
    let per_device = spec.value["perDeviceNodeSelection"] == true;
    let mut names: Vec<&str> = Vec::new();
    spec.each("devices", |mut device| {
        let name = device.text("name");
        device.need_fit("name", text::dns1123_label);
        if names.contains(&name) {
            device.under("name").duplicate();
        }
        names.push(name);
        self::device(&mut device, per_device);
    });
    let sets = spec.list("sharedCounters").len();
    if sets > MOST_COUNTER_SETS {
        spec.under("sharedCounters").too_many(sets, MOST_COUNTER_SETS);
    }
    spec.each("sharedCounters", |mut set| {
        set.need_fit("name", text::dns1123_label);
        counters(&mut set);
    });
}

/// A slice says in exactly one way which nodes can reach its devices.
fn where_it_is(spec: &mut At<'_, '_>) {
    let mut ways = Vec::new();
    if spec.has("nodeName") {
        match spec.text("nodeName") {
            "" => spec
                .under("nodeName")
                .invalid("must be either unset or set to a non-empty string"),
            _ => {
                ways.push("`nodeName`");
                spec.under("nodeName").fits(text::dns1123_subdomain);
            }
        }
    }
    if spec.has("nodeSelector") {
        ways.push("`nodeSelector`");
        spec.each("nodeSelector.nodeSelectorTerms", super::pod_affinity::node_term);
        if spec.list("nodeSelector.nodeSelectorTerms").len() != 1 {
            spec.under("nodeSelector.nodeSelectorTerms")
                .invalid("must have exactly one node selector term");
        }
    }
    for key in ["allNodes", "perDeviceNodeSelection"] {
        match &spec.value[key] {
            Value::Null => {}
            Value::Bool(true) if key == "allNodes" => ways.push("`allNodes`"),
            Value::Bool(true) => ways.push("`perDeviceNodeSelection`"),
            _ => spec.under(key).invalid("must be either unset or set to true"),
        }
    }
    let one = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    match ways.len() {
        0 => spec.required(one),
        1 => {}
        _ => {
            let shown = format!("\"{{{}}}\"", ways.join(", "));
            let cause = Cause::invalid(spec.path(), shown, &format!("{one}, but multiple fields are set"));
            spec.push(cause);
        }
    }
}

fn device(device: &mut At<'_, '_>, per_device: bool) {
    let size = |key: &str| device.value[key].as_object().map_or(0, |m| m.len());
    let total = size("attributes") + size("capacity");
    if total > MOST_ATTRIBUTES {
        let says = format!("the total number of attributes and capacities must not exceed {MOST_ATTRIBUTES}");
        let cause = Cause::invalid(device.path(), total, &says);
        device.push(cause);
    }
    device.entries("attributes", |name, mut value| {
        named(name, &mut value);
        let kinds = [
            "bool", "int", "string", "version", "bools", "ints", "strings", "versions",
        ];
        if kinds.iter().filter(|k| value.has(k)).count() != 1 {
            value.invalid("exactly one value must be specified");
        }
        if value.text("string").len() > LONGEST_VALUE {
            value.under("string").too_long(LONGEST_VALUE);
        }
        if value.has("version") && !is_semver(value.text("version")) {
            value
                .under("version")
                .invalid("must be a string compatible with semver.org spec 2.0.0");
        }
    });
    let several = device.value["allowMultipleAllocations"] == true;
    device.entries("capacity", |name, mut value| {
        named(name, &mut value);
        value.under("value").must_be_quantity();
        if value.has("requestPolicy") && !several {
            value
                .under("requestPolicy")
                .forbidden("allowMultipleAllocations must be true");
        }
    });
    let taints = device.list("taints").len();
    if taints > MOST_TAINTS {
        device.under("taints").too_many(taints, MOST_TAINTS);
    }
    device.each("taints", |mut taint| {
        taint.need_fit("key", text::qualified_name);
        taint.under("value").fits(text::label_value);
        taint.one_of("effect", &["NoExecute", "NoSchedule", "None"]);
    });
    device.each("consumesCounters", |mut consumed| {
        consumed.need_fit("counterSet", text::dns1123_label);
        counters(&mut consumed);
    });
    let given = ["nodeName", "nodeSelector", "allNodes"]
        .iter()
        .filter(|k| device.has(k))
        .count();
    let needed = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
    match (per_device, given) {
        (true, 0) => device.required(needed),
        (true, 1) | (false, 0) => {}
        (true, _) => device.invalid(needed),
        (false, _) => {
            let says = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
            let cause = Cause::invalid(device.path(), "null", says);
            device.push(cause);
        }
    }
}

fn named(name: &str, value: &mut At<'_, '_>) {
    for complaint in attribute_name(name) {
        let cause = Cause::invalid(value.path(), format!("{name:?}"), &complaint);
        value.push(cause);
    }
}

fn counters(of: &mut At<'_, '_>) {
    let count = of.value["counters"].as_object().map_or(0, |c| c.len());
    match count {
        0 => of.under("counters").required(""),
        count if count > MOST_COUNTERS => of.under("counters").too_many(count, MOST_COUNTERS),
        _ => {}
    }
    of.entries("counters", |name, mut counter| {
        for complaint in text::dns1123_label(name) {
            let cause = Cause::invalid(counter.path(), format!("{name:?}"), &complaint);
            counter.push(cause);
        }
        counter.under("value").must_be_quantity();
    });
}

/// `1.2.3`, `1.2.3-rc.1+build` (semver.org 2.0.0).
fn is_semver(text: &str) -> bool {
    let (rest, build) = text.split_once('+').map_or((text, None), |(r, b)| (r, Some(b)));
    let (core, pre) = rest.split_once('-').map_or((rest, None), |(c, p)| (c, Some(p)));
    let number = |n: &str| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()) && (n == "0" || !n.starts_with('0'));
    let word = |w: &str| !w.is_empty() && w.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let pre_word = |w: &str| word(w) && (!w.bytes().all(|b| b.is_ascii_digit()) || number(w));
    core.split('.').count() == 3
        && core.split('.').all(number)
        && pre.is_none_or(|p| p.split('.').all(pre_word))
        && build.is_none_or(|b| b.split('.').all(word))
}
