//! What of a pod the standards speak of, read from its JSON; the rest is passed over.

use std::collections::BTreeMap;

use sdk::columns::Cell;
use sdk::fields::FromCell;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

/// A pod, or the template of one.
#[derive(Deserialize, Debug, Default)]
#[serde(default)]
pub(crate) struct Pod {
    pub(crate) metadata: Metadata,
    pub(crate) spec: Spec,
}

#[derive(Deserialize, Debug, Default)]
#[serde(default)]
pub(crate) struct Metadata {
    pub(crate) annotations: BTreeMap<String, String>,
}

#[derive(Deserialize, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Spec {
    init_containers: Vec<Container>,
    containers: Vec<Container>,
    ephemeral_containers: Vec<Container>,
    pub(crate) volumes: Vec<Volume>,
    pub(crate) security_context: SecurityContext,
    pub(crate) host_network: bool,
    #[serde(rename = "hostPID")]
    pub(crate) host_pid: bool,
    #[serde(rename = "hostIPC")]
    pub(crate) host_ipc: bool,
    host_users: Option<bool>,
    os: Os,
}

#[derive(Deserialize, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Container {
    pub(crate) name: String,
    image: String,
    pub(crate) security_context: SecurityContext,
    pub(crate) ports: Vec<Port>,
    liveness_probe: Handler,
    readiness_probe: Handler,
    startup_probe: Handler,
    lifecycle: Lifecycle,
}

/// Of a pod or of a container; what only the other can have is not there.
#[derive(Deserialize, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct SecurityContext {
    pub(crate) privileged: bool,
    pub(crate) allow_privilege_escalation: Option<bool>,
    pub(crate) capabilities: Capabilities,
    pub(crate) proc_mount: Option<String>,
    pub(crate) run_as_non_root: Option<bool>,
    pub(crate) run_as_user: Option<i64>,
    pub(crate) app_armor_profile: Option<Profile>,
    pub(crate) seccomp_profile: Option<Profile>,
    pub(crate) se_linux_options: SeLinuxOptions,
    pub(crate) sysctls: Vec<Sysctl>,
    pub(crate) windows_options: WindowsOptions,
}

#[derive(Deserialize, Debug, Default)]
#[serde(default)]
pub(crate) struct Capabilities {
    pub(crate) add: Vec<String>,
    pub(crate) drop: Vec<String>,
}

#[derive(Deserialize, Debug, Default)]
#[serde(default)]
pub(crate) struct Profile {
    #[serde(rename = "type")]
    pub(crate) kind: String,
}

#[derive(Deserialize, Debug, Default)]
#[serde(default)]
pub(crate) struct SeLinuxOptions {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) user: String,
    pub(crate) role: String,
}

#[derive(Deserialize, Debug, Default)]
#[serde(default)]
pub(crate) struct Sysctl {
    pub(crate) name: String,
}

#[derive(Deserialize, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct WindowsOptions {
    pub(crate) host_process: bool,
}

#[derive(Deserialize, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Port {
    pub(crate) host_port: i32,
}

#[derive(Deserialize, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
struct Lifecycle {
    post_start: Handler,
    pre_stop: Handler,
}

/// A probe, or what is done when a container starts or stops.
#[derive(Deserialize, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
struct Handler {
    http_get: Host,
    tcp_socket: Host,
}

#[derive(Deserialize, Debug, Default)]
#[serde(default)]
struct Host {
    host: String,
}

#[derive(Deserialize, Debug, Default)]
#[serde(default)]
pub(crate) struct Volume {
    pub(crate) name: String,
    /// By the name of its type: `hostPath`. A valid volume has one.
    #[serde(flatten)]
    source: BTreeMap<String, IgnoredAny>,
}

#[derive(Deserialize, Debug, Default)]
#[serde(default)]
struct Os {
    name: String,
}

impl Pod {
    /// All that run in it at some time, in the order in which they can.
    pub(crate) fn containers(&self) -> impl Iterator<Item = &Container> {
        let Spec {
            init_containers,
            containers,
            ephemeral_containers,
            ..
        } = &self.spec;
        init_containers.iter().chain(containers).chain(ephemeral_containers)
    }

    /// The names of the containers of which it is so.
    pub(crate) fn those(&self, is: impl Fn(&Container) -> bool) -> Vec<&str> {
        let containers = self.containers().filter(|container| is(container));
        containers.map(|container| container.name.as_str()).collect()
    }

    /// It says itself that it runs on Windows, where validation refuses what only Linux has.
    pub(crate) fn is_windows(&self) -> bool {
        self.spec.os.name == "windows"
    }

    /// Its root is nobody on the node (KEP-127).
    pub(crate) fn has_its_own_users(&self) -> bool {
        self.spec.host_users == Some(false)
    }

    /// Whether an update may have changed what the standards say of it. Of all that they look at only the image of a
    /// container goes with what can be changed, and an ephemeral container can come.
    pub(crate) fn runs_other_than(&self, old: &Pod) -> bool {
        fn images(list: &[Container]) -> impl Iterator<Item = &str> {
            list.iter().map(|container| container.image.as_str())
        }
        let (new, old) = (&self.spec, &old.spec);
        let was_there = |c: &Container| {
            let mut before = old.ephemeral_containers.iter();
            before.any(|o| (&o.name, &o.image) == (&c.name, &c.image))
        };
        images(&new.containers).ne(images(&old.containers))
            || images(&new.init_containers).ne(images(&old.init_containers))
            || !new.ephemeral_containers.iter().all(was_there)
    }
}

impl Container {
    /// The hosts other than the pod itself that its probes and handlers name.
    pub(crate) fn probed_hosts(&self) -> impl Iterator<Item = &str> {
        let Lifecycle { post_start, pre_stop } = &self.lifecycle;
        let probes = [&self.liveness_probe, &self.readiness_probe, &self.startup_probe];
        let handlers = probes.into_iter().chain([post_start, pre_stop]);
        let hosts = handlers.flat_map(|handler| [&handler.http_get.host, &handler.tcp_socket.host]);
        hosts.map(String::as_str).filter(|host| !host.is_empty())
    }
}

impl Volume {
    pub(crate) fn is(&self, kind: &str) -> bool {
        self.source.contains_key(kind)
    }

    pub(crate) fn kind(&self) -> &str {
        self.source.keys().next().map_or("unknown", String::as_str)
    }
}

/// A part of an object as JSON, to be read as what it is in this kind.
#[derive(Clone, Debug)]
pub(crate) struct Text(pub(crate) String);

impl Text {
    /// # Errors
    /// `invalid`, with the place in the text.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> sdk::Result<T> {
        serde_json::from_str(&self.0).map_err(|error| sdk::Error::invalid(format!("not as a pod is written: {error}")))
    }
}

impl FromCell for Text {
    fn from_cell(cell: Cell<'_>) -> Result<Self, &'static str> {
        match cell {
            Cell::Json(json) => Ok(Self(json.to_owned())),
            Cell::Absent | Cell::Null => Ok(Self("null".to_owned())),
            _ => Err("an object"),
        }
    }
}
