//! What happened, as `audit.k8s.io/v1` events at the Metadata level.

mod file;

use jiff::Timestamp;
use model::UserInfo;
use serde::Serialize;

pub use file::FileLog;

/// One request, after it was answered.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    #[serde(rename = "auditID")]
    pub audit_id: String,
    pub stage: &'static str,
    #[serde(rename = "requestURI")]
    pub request_uri: String,
    pub verb: String,
    pub user: UserInfo,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub impersonated_user: Option<UserInfo>,
    #[serde(rename = "sourceIPs")]
    pub source_ips: Vec<String>,
    pub user_agent: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object_ref: Option<ObjectRef>,
    pub response_status: ResponseStatus,
    pub request_received_timestamp: Timestamp,
    pub stage_timestamp: Timestamp,
}

/// Which object, as the URL addressed it. Empty parts are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectRef {
    pub resource: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_group: String,
    pub api_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subresource: String,
}

#[derive(Debug, Clone, Serialize)]
pub struct ResponseStatus {
    pub code: u16,
}

impl Event {
    /// The line of an audit log.
    pub fn json(&self) -> String {
        let head = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"Metadata","#;
        let body = serde_json::to_string(self).expect("strings and numbers only");
        format!("{head}{}", &body[1..])
    }
}

/// Where events go. Must not block: a sink that writes files hands over to a bounded queue and counts what it drops.
pub trait Sink: Send + Sync + 'static {
    fn record(&self, event: &Event);
}

/// Keeps no log.
pub struct NoLog;

impl Sink for NoLog {
    fn record(&self, _event: &Event) {}
}
