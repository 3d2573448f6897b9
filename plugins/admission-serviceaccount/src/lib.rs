//! Gives pods an account, and mounts its token, the cluster's certificate and their namespace into every container.

use sdk::admission::{Answer, Request};
use sdk::{Fields, Value, View, json};

/// Where programs look for the token (client-go's in-cluster configuration).
const MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// How long a token is good; the kubelet gets a new one in time.
const LIFETIME: i64 = 3607;

#[derive(Fields, Clone, Debug)]
struct Pod {
    #[at(".metadata.annotations")]
    annotations: Value,
    #[at(".spec.serviceAccountName")]
    account: String,
    #[at(".spec.automountServiceAccountToken")]
    automount: Option<bool>,
    #[at(".spec.volumes")]
    volumes: Value,
    #[at(".spec.containers")]
    containers: Value,
    #[at(".spec.initContainers")]
    init_containers: Value,
    #[at(".spec.imagePullSecrets")]
    pull_secrets: Value,
}

#[derive(Fields)]
struct Account {
    #[at(".automountServiceAccountToken")]
    automount: Option<bool>,
    #[at(".imagePullSecrets")]
    pull_secrets: Value,
}

#[sdk::admission(on = ["create pods"], phases = ["mutating", "validating"], asks = ["get serviceaccounts"])]
fn review(request: Request<Pod>, view: &View) -> sdk::Result<Answer> {
    let Some(pod) = &request.object else {
        return Ok(Answer::allow());
    };
    // A kubelet's own static pods have no account and may not name one.
    if pod.annotations.get("kubernetes.io/config.mirror").is_some() {
        return Ok(Answer::allow());
    }
    let name = if pod.account.is_empty() {
        "default"
    } else {
        &pod.account
    };
    let account: Option<Account> = view.get("v1/ServiceAccount", &request.namespace, name)?;
    let Some(account) = account else {
        let namespace = &request.namespace;
        return Ok(Answer::deny(format!(
            "error looking up service account {namespace}/{name}: serviceaccount \"{name}\" not found"
        )));
    };
    if matches!(request.phase, sdk::admission::Phase::Validating) {
        return Ok(Answer::allow());
    }
    let suffix = format!(
        "{:05x}",
        fnv(&format!("{}/{}", request.namespace, request.name)) & 0xf_ffff
    );
    Ok(complete(pod, name, &account, &suffix))
}

/// The patch that gives the pod what it lacks.
fn complete(pod: &Pod, name: &str, account: &Account, suffix: &str) -> Answer {
    let mut answer = Answer::allow();
    if pod.account.is_empty() {
        answer = answer.patch("add", "/spec/serviceAccountName", name.into()).patch(
            "add",
            "/spec/serviceAccount",
            name.into(),
        );
    }
    let has = |value: &Value| value.as_array().is_some_and(|list| !list.is_empty());
    if !has(&pod.pull_secrets) && has(&account.pull_secrets) {
        answer = answer.patch("add", "/spec/imagePullSecrets", account.pull_secrets.clone());
    }
    if !pod.automount.or(account.automount).unwrap_or(true) {
        return answer;
    }
    let volume = format!("kube-api-access-{suffix}");
    let mut mounted = false;
    for (list, field) in [
        (&pod.init_containers, "initContainers"),
        (&pod.containers, "containers"),
    ] {
        for (at, container) in list.as_array().into_iter().flatten().enumerate() {
            let mounts = container["volumeMounts"].as_array();
            // Who mounts something there has its own idea of a token.
            if mounts.into_iter().flatten().any(|mount| mount["mountPath"] == MOUNT) {
                continue;
            }
            mounted = true;
            let mount = json!({"name": volume, "mountPath": MOUNT, "readOnly": true});
            let path = format!("/spec/{field}/{at}/volumeMounts");
            answer = match mounts {
                Some(_) => answer.patch("add", &format!("{path}/-"), mount),
                None => answer.patch("add", &path, json!([mount])),
            };
        }
    }
    if !mounted {
        return answer;
    }
    let volume = json!({
        "name": volume,
        "projected": {
            "defaultMode": 420,
            "sources": [
                {"serviceAccountToken": {"path": "token", "expirationSeconds": LIFETIME}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [
                    {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}},
                ]}},
            ],
        },
    });
    match pod.volumes.as_array() {
        Some(_) => answer.patch("add", "/spec/volumes/-", volume),
        None => answer.patch("add", "/spec/volumes", json!([volume])),
    }
}

/// FNV-1a: equal requests get equal volume names, so a replayed call answers the same bytes.
fn fnv(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(spec: &Value) -> Pod {
        Pod {
            annotations: Value::Null,
            account: spec["serviceAccountName"].as_str().unwrap_or_default().into(),
            automount: spec["automountServiceAccountToken"].as_bool(),
            volumes: spec["volumes"].clone(),
            containers: spec["containers"].clone(),
            init_containers: spec["initContainers"].clone(),
            pull_secrets: Value::Null,
        }
    }

    fn account() -> Account {
        Account {
            automount: None,
            pull_secrets: Value::Null,
        }
    }

    fn paths(answer: &Answer) -> Vec<&str> {
        answer.patch.iter().filter_map(|step| step["path"].as_str()).collect()
    }

    #[test]
    fn a_plain_pod_gets_account_token_and_volume() {
        let answer = complete(
            &pod(&json!({"containers": [{"name": "a"}]})),
            "default",
            &account(),
            "x",
        );
        let expected = [
            "/spec/serviceAccountName",
            "/spec/serviceAccount",
            "/spec/containers/0/volumeMounts",
            "/spec/volumes",
        ];
        assert_eq!(paths(&answer), expected);
    }

    #[test]
    fn existing_lists_are_added_to_and_own_mounts_respected() {
        let spec = json!({
            "serviceAccountName": "robot",
            "volumes": [{"name": "v"}],
            "containers": [
                {"name": "a", "volumeMounts": [{"name": "v", "mountPath": "/v"}]},
                {"name": "b", "volumeMounts": [{"name": "v", "mountPath": MOUNT}]},
            ],
        });
        let answer = complete(&pod(&spec), "robot", &account(), "x");
        assert_eq!(paths(&answer), ["/spec/containers/0/volumeMounts/-", "/spec/volumes/-"]);
    }

    #[test]
    fn pod_and_account_may_say_no() {
        let spec = json!({"serviceAccountName": "robot", "automountServiceAccountToken": false, "containers": [{"name": "a"}]});
        assert!(complete(&pod(&spec), "robot", &account(), "x").patch.is_empty());
        let spec = json!({"serviceAccountName": "robot", "containers": [{"name": "a"}]});
        let no = Account {
            automount: Some(false),
            ..account()
        };
        assert!(complete(&pod(&spec), "robot", &no, "x").patch.is_empty());
    }
}
