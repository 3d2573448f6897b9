//! Where a kubelet keeps what on disk.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::runtime::PodRef;

/// ```text
/// ROOT/pods/UID/volumes/NAME     a volume's files
/// ROOT/pods/UID/etc-hosts        CRI only
/// ROOT/logs/NAMESPACE_NAME_UID/CONTAINER/ATTEMPT.log
/// ```
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub root: PathBuf,
}

impl Layout {
    pub fn pods(&self) -> PathBuf {
        self.root.join("pods")
    }

    pub fn pod(&self, uid: &str) -> PathBuf {
        self.pods().join(uid)
    }

    pub fn volume(&self, uid: &str, name: &str) -> PathBuf {
        self.pod(uid).join("volumes").join(name)
    }

    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    pub fn pod_logs(&self, pod: &PodRef) -> PathBuf {
        // `_` is in no name of Kubernetes, so no two pods share a folder.
        self.logs().join(format!("{}_{}_{}", pod.namespace, pod.name, pod.uid))
    }
}

/// Makes a folder that only its owner may enter, with those above it.
pub(crate) fn private_dir(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Below `root`, or `None` if the path would leave it: names from objects are never trusted.
pub(crate) fn below(root: &Path, relative: &str) -> Option<PathBuf> {
    let relative = Path::new(relative.trim_start_matches('/'));
    let plain = relative
        .components()
        .all(|c| matches!(c, std::path::Component::Normal(_) | std::path::Component::CurDir));
    plain.then(|| root.join(relative))
}
