//! Debian packages that tests drive: installed where we may, told where we may not.

use std::process::{Command, Stdio};

/// Package, and a file that is there once it is installed.
const PACKAGES: [(&str, &str); 11] = [
    ("etcd-server", "/usr/bin/etcd"),
    ("containerd", "/usr/bin/containerd"),
    ("runc", "/usr/sbin/runc"),
    ("containernetworking-plugins", "/usr/lib/cni/bridge"),
    ("nftables", "/usr/sbin/nft"),
    ("conntrack", "/usr/sbin/conntrack"),
    ("iproute2", "/usr/sbin/ip"),
    ("umoci", "/usr/bin/umoci"),
    ("skopeo", "/usr/bin/skopeo"),
    ("busybox-static", "/bin/busybox"),
    ("curl", "/usr/bin/curl"),
];

/// Installs what is missing. What cannot be had is told in one line each; the tests that need it say so themselves.
pub fn install() {
    let missing: Vec<&str> = missing();
    if missing.is_empty() {
        return;
    }
    eprintln!("installing {}", missing.join(" "));
    let apt = |args: &[&str]| {
        let mut apt = Command::new("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive")
            .args(["-qq", "-o", "Dpkg::Use-Pty=0"])
            .args(args);
        apt.stdout(Stdio::null())
            .stdin(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    // Without a list of packages nothing is found; with an old one, sometimes not.
    let install: Vec<&str> = ["install", "-y", "--no-install-recommends"]
        .into_iter()
        .chain(missing.iter().copied())
        .collect();
    if !apt(&install) {
        apt(&["update"]);
        apt(&install);
    }
    for package in self::missing() {
        eprintln!("not installed: {package}; tests that need it are skipped");
    }
}

fn missing() -> Vec<&'static str> {
    PACKAGES
        .iter()
        .filter(|(_, file)| !std::path::Path::new(file).exists())
        .map(|(package, _)| *package)
        .collect()
}
