//! CertificateSigningRequest: somebody asks for a certificate. Who asks is written by the server; `approval` decides,
//! and a signer puts the certificate into `status`.

use base64::Engine;
use jiff::Timestamp;
use model::{Cause, UserInfo, Verb, text};
use serde_json::{Value, json};

use crate::meta;
use crate::resource::{Door, Resource, status_and_metadata};
use crate::resources::check::At;
use crate::resources::common::child;
use crate::table::{Column, list_at, plain, text_at};

/// What a key may be used for: RFC 5280, sections 4.2.1.3 and 4.2.1.12.
const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

pub(crate) fn resource() -> Resource {
    Resource::cluster(
        "certificates.k8s.io",
        "v1",
        "CertificateSigningRequest",
        "certificatesigningrequests",
    )
    .short(&["csr"])
    .no_generation()
    .selectable(&["spec.signerName"])
    .columns(vec![
        Column::age(),
        Column::text_or("SignerName", "spec.signerName", "").about("Who is to sign."),
        Column::text_or("Requestor", "spec.username", "").about("Who asked."),
        Column::computed("RequestedDuration", |o, _| {
            match o["spec"]["expirationSeconds"].as_i64() {
                Some(seconds) => crate::table::duration(seconds).into(),
                None => "<none>".into(),
            }
        })
        .about("How long the certificate is to be good."),
        Column::computed("Condition", |o, _| condition(o).into()).about("Whether it is approved and issued."),
    ])
    .prepare(prepare)
    .author(author)
    .stamp(stamp)
    .validate(validate)
    .status_door(signed, validate_signed)
    .door(
        "approval",
        None,
        &[Verb::Get, Verb::Patch, Verb::Update],
        Door::Part(decided, validate_decided),
    )
}

/// Nothing but metadata changes without a door.
fn prepare(new: &mut Value, old: Option<&Value>) {
    match old {
        None => new["status"] = json!({}),
        Some(old) => meta::put(new, "spec", old.get("spec").cloned()),
    }
}

fn author(new: &mut Value, user: &UserInfo) {
    let spec = child(new, "spec");
    meta::put(spec, "username", Some(user.name.clone().into()));
    meta::put(spec, "uid", (!user.uid.is_empty()).then(|| user.uid.clone().into()));
    meta::put(spec, "groups", (!user.groups.is_empty()).then(|| json!(user.groups)));
    meta::put(spec, "extra", (!user.extra.is_empty()).then(|| json!(user.extra)));
}

fn signed(new: &mut Value, old: &Value) {
    status_and_metadata(new, old);
}

/// The conditions and nothing else of the status.
fn decided(new: &mut Value, old: &Value) {
    let conditions = new.pointer_mut("/status/conditions").map(Value::take);
    status_and_metadata(new, old);
    meta::put(new, "status", old.get("status").cloned());
    meta::put(child(new, "status"), "conditions", conditions);
}

/// When a condition was last written, and when it last became what it is.
fn stamp(new: &mut Value, old: Option<&Value>, now: Timestamp) {
    let now = model::time::seconds(now);
    let before = old.map(|o| list_at(o, "status.conditions")).unwrap_or_default();
    for condition in new
        .pointer_mut("/status/conditions")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        if condition["lastUpdateTime"].is_null() {
            condition["lastUpdateTime"] = now.clone().into();
        }
        if condition["lastTransitionTime"].is_null() {
            let same = |b: &&Value| b["type"] == condition["type"] && b["status"] == condition["status"];
            let kept = before.iter().find(same).map(|b| b["lastTransitionTime"].clone());
            condition["lastTransitionTime"] = kept.filter(|t| !t.is_null()).unwrap_or(now.clone().into());
        }
    }
}

fn condition(request: &Value) -> String {
    let has = |kind: &str| list_at(request, "status.conditions").iter().any(|c| c["type"] == kind);
    let mut words = vec![match () {
        () if has("Denied") => "Denied",
        () if has("Approved") => "Approved",
        () => "Pending",
    }];
    if has("Failed") {
        words.push("Failed");
    }
    if !text_at(request, "status.certificate").is_empty() {
        words.push("Issued");
    }
    words.join(",")
}

fn validate(new: &Value, _old: Option<&Value>, wrong: &mut Vec<Cause>) {
    let mut spec = At::new(&new["spec"], "spec", wrong);
    if let Err(error) = parse_request(spec.text("request")) {
        spec.under("request").invalid(error);
    }
    if spec.list("usages").is_empty() {
        spec.under("usages").required("");
    }
    let mut seen: Vec<&Value> = Vec::new();
    spec.each("usages", |mut usage| {
        if !USAGES.contains(&usage.value.as_str().unwrap_or_default()) {
            usage.not_supported(&USAGES);
        }
        if seen.contains(&usage.value) {
            usage.duplicate();
        }
        seen.push(usage.value);
    });
    match spec.text("signerName") {
        "kubernetes.io/legacy-unknown" => spec
            .under("signerName")
            .invalid("the legacy signerName is not allowed via this API version"),
        _ => spec.with("signerName", signer_name),
    }
    if spec.int("expirationSeconds").is_some_and(|s| s < 600) {
        spec.under("expirationSeconds")
            .invalid("may not specify a duration less than 600 seconds (10 minutes)");
    }
}

/// `domain/path`, the path being DNS names and of a limited length.
fn signer_name(name: &Value, field: &str, wrong: &mut Vec<Cause>) {
    let whole = name.as_str().unwrap_or_default();
    if whole.is_empty() {
        return wrong.push(Cause::required(field, ""));
    }
    let Some((domain, path)) = whole.split_once('/').filter(|(_, path)| !path.contains('/')) else {
        let says = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        return wrong.push(Cause::invalid(field, name, says));
    };
    for complaint in text::dns1123_subdomain(domain) {
        let says = format!("validating label {domain:?}: {complaint}");
        wrong.push(Cause::invalid(field, format!("{domain:?}"), &says));
    }
    if !domain.contains('.') {
        let says = "should be a domain with at least two segments separated by dots";
        wrong.push(Cause::invalid(field, format!("{domain:?}"), says));
    }
    for complaint in text::dns1123_subdomain(path) {
        let says = format!("validating label {path:?}: {complaint}");
        wrong.push(Cause::invalid(field, format!("{path:?}"), &says));
    }
    if whole.len() > 571 {
        wrong.push(Cause::too_long(field, 571));
    }
}

/// Base64 of PEM of a PKCS #10 request; what is inside is the signer's business.
fn parse_request(text: &str) -> Result<(), &'static str> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(text);
    let pem = bytes
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .unwrap_or_default();
    let body = pem
        .split_once("-----BEGIN CERTIFICATE REQUEST-----")
        .and_then(|(_, rest)| rest.split_once("-----END CERTIFICATE REQUEST-----"));
    let Some((body, _)) = body else {
        return Err("PEM block type must be CERTIFICATE REQUEST");
    };
    let packed: String = body.split_whitespace().collect();
    let der = base64::engine::general_purpose::STANDARD
        .decode(packed)
        .unwrap_or_default();
    if is_sequence(&der) {
        Ok(())
    } else {
        Err("asn1: structure error: the block holds no PKCS #10 request")
    }
}

/// One DER SEQUENCE that is as long as it says.
fn is_sequence(der: &[u8]) -> bool {
    let (Some(0x30), Some(&first)) = (der.first(), der.get(1)) else {
        return false;
    };
    let count = match first {
        0..=0x7f => return der.len() == 2 + usize::from(first),
        0x81..=0x84 => usize::from(first & 0x7f),
        _ => return false,
    };
    let length = der
        .get(2..2 + count)
        .map(|l| l.iter().fold(0, |n, b| n << 8 | usize::from(*b)));
    length.is_some_and(|length| der.len() == 2 + count + length)
}

fn decisions(object: &Value) -> Vec<&Value> {
    let is_one = |c: &&Value| c["type"] == "Approved" || c["type"] == "Denied";
    list_at(object, "status.conditions").iter().filter(is_one).collect()
}

fn validate_conditions(new: &Value, wrong: &mut Vec<Cause>) {
    let mut seen: Vec<String> = Vec::new();
    let path = "status.conditions";
    At::new(new, "", wrong).each(path, |mut condition| {
        let kind = condition.text("type");
        condition.need("type", "");
        let statuses: &[&str] = match kind {
            "Approved" | "Denied" | "Failed" => &["True"],
            _ => &["False", "True", "Unknown"],
        };
        condition.one_of("status", statuses);
        let other = match kind {
            "Approved" => "Denied",
            "Denied" => "Approved",
            _ => "",
        };
        if seen.iter().any(|s| s == other) {
            let says = "Approved and Denied conditions are mutually exclusive";
            condition.push(Cause::invalid(path, format!("{kind:?}"), says));
        }
        if seen.iter().any(|s| s == kind) {
            condition.under("type").duplicate();
        }
        seen.push(kind.to_owned());
    });
}

fn kept(new: &Value, old: &Value, kinds: &[&str], wrong: &mut Vec<Cause>) {
    let of = |object: &Value, kind: &str| {
        list_at(object, "status.conditions")
            .iter()
            .filter(|c| c["type"] == kind)
            .count()
    };
    for kind in kinds {
        if of(old, kind) > of(new, kind) {
            let says = format!("updates may not remove a condition of type {kind:?}");
            wrong.push(Cause::forbidden("status.conditions", &says));
        }
    }
}

fn validate_signed(new: &Value, old: Option<&Value>, wrong: &mut Vec<Cause>) {
    validate_conditions(new, wrong);
    let Some(old) = old else { return };
    kept(new, old, &["Approved", "Denied", "Failed"], wrong);
    if decisions(new).len() > decisions(old).len() {
        for kind in ["Approved", "Denied"] {
            let had = decisions(old).iter().any(|c| c["type"] == kind);
            if !had && decisions(new).iter().any(|c| c["type"] == kind) {
                let says = format!("updates may not add a condition of type {kind:?}");
                wrong.push(Cause::forbidden("status.conditions", &says));
            }
        }
    }
    let (now, before) = (text_at(new, "status.certificate"), text_at(old, "status.certificate"));
    if !before.is_empty() && now != before {
        let says = "updates may not modify existing certificate content";
        wrong.push(Cause::forbidden("status.certificate", says));
    } else if !now.is_empty() && now != before && !has_certificate(now) {
        let says = "must contain at least one CERTIFICATE PEM block";
        wrong.push(Cause::invalid("status.certificate", "\"<certificate data>\"", says));
    }
}

fn has_certificate(text: &str) -> bool {
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(text)
        .unwrap_or_default();
    let pem = String::from_utf8_lossy(&bytes);
    pem.contains("-----BEGIN CERTIFICATE-----") && pem.contains("-----END CERTIFICATE-----")
}

fn validate_decided(new: &Value, old: Option<&Value>, wrong: &mut Vec<Cause>) {
    validate_conditions(new, wrong);
    let Some(old) = old else { return };
    kept(new, old, &["Approved", "Denied", "Failed"], wrong);
    for before in decisions(old) {
        let now = decisions(new).into_iter().find(|c| c["type"] == before["type"]);
        if now.is_some_and(|now| now != before) {
            let says = format!("updates may not modify a condition of type {}", plain(&before["type"]));
            wrong.push(Cause::forbidden("status.conditions", &says));
        }
    }
}
