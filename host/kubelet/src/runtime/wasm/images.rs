//! The node's own image store: Wasm components by reference, their bytes by digest, their machine code by engine.
//!
//! ```text
//! DIR/refs/HASH.json         {"reference","digest","bytes"}: one file a reference, swapped in whole
//! DIR/blobs/HEX.wasm         the component, named by its SHA-256
//! DIR/aot/HEX-ENGINE.cwasm   compiled for this engine and machine
//! DIR/aot/HEX-ENGINE.json    {"code": SHA-256 of the .cwasm, "runs", "serves"}: written last, so it vouches for the rest
//! ```
//! The folder is private to its user: mapping forged machine code would be running it. A crash leaves unnamed files or a
//! `.cwasm` without its `.json`, which is compiled again.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::files::private_dir;

/// Cheap to clone; safe to use from several processes at once, since every file is swapped in whole.
#[derive(Debug, Clone)]
pub struct ImageStore {
    dir: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Image {
    /// As pods name it, with its tag.
    pub reference: String,
    /// `sha256:HEX` of the component.
    pub digest: String,
    pub bytes: u64,
}

/// What a compiled component is, beside its code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Compiled {
    /// `sha256` of the code, in hex.
    pub code: String,
    /// Exports `wasi:cli/run`.
    pub runs: bool,
    /// Exports `wasi:http/incoming-handler`.
    pub serves: bool,
}

impl ImageStore {
    /// # Errors
    /// When the folder cannot be made, or others than its owner may write in it.
    pub fn open(dir: impl Into<PathBuf>) -> io::Result<Self> {
        let dir = dir.into();
        for part in ["refs", "blobs", "aot"] {
            private_dir(&dir.join(part))?;
        }
        if fs::metadata(&dir)?.mode() & 0o022 != 0 {
            return Err(io::Error::other(format!(
                "{} may be written by others, and what is in it is run: chmod 700 it",
                dir.display()
            )));
        }
        Ok(Self { dir })
    }

    /// Takes a component in under a name; a name that exists means the new one from now on.
    ///
    /// # Errors
    /// A sentence when the file is no Wasm component, or cannot be read or kept.
    pub fn import(&self, reference: &str, file: &Path) -> io::Result<Image> {
        let bytes = fs::read(file).map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", file.display())))?;
        self.import_bytes(reference, &bytes)
            .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", file.display())))
    }

    /// [`ImageStore::import`] of bytes that are not in a file.
    ///
    /// # Errors
    /// Those of [`ImageStore::import`].
    pub fn import_bytes(&self, reference: &str, bytes: &[u8]) -> io::Result<Image> {
        let reference = full_reference(reference);
        if reference.contains(char::is_whitespace) || reference.starts_with(':') {
            return Err(io::Error::other(format!(
                "{reference:?} cannot be the name of an image"
            )));
        }
        check_component(bytes).map_err(io::Error::other)?;
        let hex = hex::encode(Sha256::digest(bytes));
        let blob = self.blob(&hex);
        if !blob.exists() {
            swap_in(&blob, bytes)?;
        }
        let image = Image {
            digest: format!("sha256:{hex}"),
            bytes: bytes.len() as u64,
            reference,
        };
        swap_in(&self.reference(&image.reference), &serde_json::to_vec(&image)?)?;
        Ok(image)
    }

    /// # Errors
    /// When the folder cannot be read.
    pub fn list(&self) -> io::Result<Vec<Image>> {
        let mut images = Vec::new();
        for entry in fs::read_dir(self.dir.join("refs"))? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "json") {
                images.extend(serde_json::from_slice::<Image>(&fs::read(path)?).ok());
            }
        }
        images.sort();
        Ok(images)
    }

    /// Forgets a name, and the bytes behind it when no other name has them. `false` if it was not there.
    ///
    /// # Errors
    /// When files cannot be removed.
    pub fn remove(&self, reference: &str) -> io::Result<bool> {
        let Some(image) = self.find(reference)? else {
            return Ok(false);
        };
        fs::remove_file(self.reference(&image.reference))?;
        if self.list()?.iter().any(|other| other.digest == image.digest) {
            return Ok(true);
        }
        let hex = image.digest.trim_start_matches("sha256:").to_owned();
        // A pod that runs has its code mapped and goes on.
        for entry in fs::read_dir(self.dir.join("aot"))?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(&hex) {
                fs::remove_file(entry.path())?;
            }
        }
        fs::remove_file(self.blob(&hex))?;
        Ok(true)
    }

    /// By name, with or without a digest behind it (`NAME@sha256:HEX` must then be that).
    ///
    /// # Errors
    /// When the file that says so cannot be read.
    pub fn find(&self, reference: &str) -> io::Result<Option<Image>> {
        let (name, digest) = match reference.split_once('@') {
            Some((name, digest)) => (full_reference(name), Some(digest)),
            None => (full_reference(reference), None),
        };
        let bytes = match fs::read(self.reference(&name)) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let image: Image = serde_json::from_slice(&bytes)?;
        Ok(Some(image).filter(|i| digest.is_none_or(|digest| digest == i.digest)))
    }

    fn reference(&self, reference: &str) -> PathBuf {
        // Names may be long and hold slashes; their hash is neither.
        self.dir
            .join("refs")
            .join(format!("{}.json", hex::encode(Sha256::digest(reference))))
    }

    pub(crate) fn blob(&self, hex: &str) -> PathBuf {
        self.dir.join("blobs").join(format!("{hex}.wasm"))
    }

    pub(crate) fn code(&self, hex: &str, engine: &str) -> PathBuf {
        self.dir.join("aot").join(format!("{hex}-{engine}.cwasm"))
    }

    /// What is known of compiled code; `None` when it is not there or not vouched for.
    pub(crate) fn compiled(&self, hex: &str, engine: &str) -> Option<Compiled> {
        let code = self.code(hex, engine);
        let said = fs::read(code.with_extension("json")).ok()?;
        code.exists().then(|| serde_json::from_slice(&said).ok())?
    }

    /// Takes back [`ImageStore::vouch`].
    pub(crate) fn disown(&self, hex: &str, engine: &str) -> io::Result<()> {
        match fs::remove_file(self.code(hex, engine).with_extension("json")) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// Vouches for code that lies in its place already.
    pub(crate) fn vouch(&self, hex: &str, engine: &str, compiled: &Compiled) -> io::Result<()> {
        swap_in(
            &self.code(hex, engine).with_extension("json"),
            &serde_json::to_vec(compiled)?,
        )
    }
}

/// `hello` → `hello:latest`.
fn full_reference(reference: &str) -> String {
    let name = reference.rsplit('/').next().unwrap_or(reference);
    if name.contains(':') || name.contains('@') {
        reference.to_owned()
    } else {
        format!("{reference}:latest")
    }
}

/// Says what is wrong with bytes that are no component, and what to do.
fn check_component(bytes: &[u8]) -> Result<(), &'static str> {
    match bytes.get(..8) {
        Some([0, b'a', b's', b'm', 1, 0, 0, 0]) => Err(
            "this is a core Wasm module, not a component; build for wasm32-wasip2, or adapt it with `wasm-tools component new`",
        ),
        Some([0, b'a', b's', b'm', _, _, 1, 0]) => Ok(()),
        _ => Err("this is no WebAssembly component"),
    }
}

fn swap_in(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::io::Write;
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let fresh = path.with_extension(format!("tmp-{}-{number}", std::process::id()));
    let mut file = fs::File::create(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMPONENT: &[u8] = &[0, b'a', b's', b'm', 0x0d, 0, 1, 0];

    #[test]
    fn names_mean_digests_and_digests_are_shared() {
        let dir = tempfile::tempdir().unwrap();
        let store = ImageStore::open(dir.path().join("images")).unwrap();
        let first = store.import_bytes("hello", COMPONENT).unwrap();
        assert_eq!(first.reference, "hello:latest");
        store.import_bytes("reg.io:5000/a/hello", COMPONENT).unwrap();
        assert_eq!(store.find("hello:latest").unwrap().unwrap(), first);
        assert!(store.find(&format!("hello@{}", first.digest)).unwrap().is_some());
        assert!(store.find("hello@sha256:00").unwrap().is_none());
        assert_eq!(store.list().unwrap().len(), 2);
        assert!(store.remove("hello").unwrap() && !store.remove("hello").unwrap());
        let hex = first.digest.trim_start_matches("sha256:");
        assert!(store.blob(hex).exists(), "another name still has it");
        assert!(store.remove("reg.io:5000/a/hello:latest").unwrap());
        assert!(!store.blob(hex).exists());
    }

    #[test]
    fn what_is_no_component_is_refused_with_advice() {
        let dir = tempfile::tempdir().unwrap();
        let store = ImageStore::open(dir.path().join("images")).unwrap();
        let core = store
            .import_bytes("x", &[0, b'a', b's', b'm', 1, 0, 0, 0])
            .unwrap_err()
            .to_string();
        assert!(core.contains("wasm32-wasip2"), "{core}");
        assert!(store.import_bytes("x", b"#!/bin/sh").is_err());
        assert!(store.import_bytes("a b", COMPONENT).is_err());
    }
}
