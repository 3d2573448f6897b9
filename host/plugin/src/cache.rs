//! Compiled components on disk, so that a plugin is compiled once and not at every start.
//!
//! Mapping a forged image would be running native code of a stranger. So the folder is ours alone, and every entry carries
//! a keyed hash (HMAC-SHA-256) under a key that never leaves the folder. An entry is read into memory, checked there and
//! used from there, so nothing can be changed between check and use. Anything odd (torn, altered, of another engine)
//! is compiled anew and replaced.

use std::fs::{self, File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hmac::{Hmac, Mac};
use model::Failure;
use sha2::Sha256;
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::Digest;
use crate::images::Images;

const MAGIC: &[u8; 8] = b"pilaot1\n";
const TAG: usize = 32;
/// A file that is still half-written after this long is nobody's.
const TORN: Duration = Duration::from_secs(3600);

/// A private folder with a key in it.
pub(crate) struct Cache {
    folder: PathBuf,
    key: [u8; 32],
    images: Images,
}

/// Where a component's code came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// It came with the binary.
    Built,
    Cached,
    Compiled,
}

impl Cache {
    /// Makes the folder and the key where they are missing.
    ///
    /// # Errors
    /// [`Failure::Internal`] if the folder cannot be made or somebody else can write to it; says which and what to do.
    pub(crate) fn open(folder: &Path, images: Images) -> Result<Self, Failure> {
        let at =
            |doing: &str, error: std::io::Error| Failure::Internal(format!("{doing} {}: {error}", folder.display()));
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|error| at("cannot make the folder of compiled plugins", error))?;
        let found = fs::symlink_metadata(folder).map_err(|error| at("cannot look at", error))?;
        if !found.is_dir() || found.uid() != nix::unistd::geteuid().as_raw() {
            return Err(Failure::Internal(format!(
                "{} belongs to somebody else; compiled plugins need a folder of their own: remove it or name another",
                folder.display()
            )));
        }
        if found.mode() & 0o077 != 0 {
            // Whoever could write here before could have left entries, but none under a key they could not read: make a new one.
            let _ = fs::remove_file(folder.join("key"));
            fs::set_permissions(folder, fs::Permissions::from_mode(0o700))
                .map_err(|error| at("cannot close", error))?;
        }
        let key = key(folder).map_err(|error| at("cannot make a key in", error))?;
        Ok(Self {
            folder: folder.to_owned(),
            key,
            images,
        })
    }

    /// The component's code: as the binary holds it, or from here if there is a sound entry, else compiled and put here.
    ///
    /// # Errors
    /// Those of the compiler. A cache that cannot be written costs time, not service.
    pub(crate) fn load(&self, engine: &Engine, digest: Digest, bytes: &[u8]) -> wasmtime::Result<(Component, Origin)> {
        // Built on a machine with other instructions, it says no here, and is compiled for this one.
        if let Some(image) = self.images.get(engine, digest)
            && let Ok(component) = map(engine, image)
        {
            return Ok((component, Origin::Built));
        }
        let name = self.entry(engine, digest);
        if let Some(image) = self.read(&name) {
            // Another build of wasmtime can share a compatibility hash by accident, never by intent: it says no here.
            if let Ok(component) = map(engine, &image[MAGIC.len() + TAG..]) {
                return Ok((component, Origin::Cached));
            }
        }
        let image = engine.precompile_component(bytes)?;
        if let Err(error) = self.write(&name, &image) {
            tracing::warn!(folder = %self.folder.display(), %error, "cannot keep a compiled plugin; it will be compiled again");
        }
        Ok((map(engine, &image)?, Origin::Compiled))
    }

    /// Removes what no engine of this build can use: entries of other versions, and what a crash left half-written.
    pub(crate) fn sweep(&self, engines: &[&Engine]) {
        let ours: Vec<String> = engines
            .iter()
            .map(|engine| format!("-{:016x}.cwasm", identity(engine)))
            .collect();
        for entry in fs::read_dir(&self.folder).into_iter().flatten().filter_map(Result::ok) {
            let name = entry.file_name().to_string_lossy().into_owned();
            let stale = name.ends_with(".cwasm") && !ours.iter().any(|end| name.ends_with(end));
            // Another process may be writing one this very moment.
            let old = || {
                entry
                    .metadata()
                    .and_then(|m| m.modified())
                    .is_ok_and(|at| at.elapsed().is_ok_and(|age| age > TORN))
            };
            if stale || (name.starts_with('.') && old()) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// Digest and engine in the name; both are hashed with the content too, so a renamed entry is a forged one.
    fn entry(&self, engine: &Engine, digest: Digest) -> String {
        format!("{}-{:016x}.cwasm", digest.hex(), identity(engine))
    }

    fn read(&self, name: &str) -> Option<Vec<u8>> {
        let image = fs::read(self.folder.join(name)).ok()?;
        let tag = image.strip_prefix(MAGIC)?.get(..TAG)?;
        let sound = self.hash(name, &image[MAGIC.len() + TAG..]).verify_slice(tag).is_ok();
        if !sound {
            tracing::warn!(
                entry = name,
                "a compiled plugin was altered or torn; compiling it again"
            );
        }
        sound.then_some(image)
    }

    /// By rename: a reader sees the whole entry or none, and a crash leaves at most a file that is never read.
    fn write(&self, name: &str, image: &[u8]) -> std::io::Result<()> {
        let torn = self.folder.join(format!(".{name}.{}", uuid::Uuid::new_v4()));
        let written = (|| {
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&torn)?;
            file.write_all(MAGIC)?;
            file.write_all(&self.hash(name, image).finalize().into_bytes())?;
            file.write_all(image)?;
            fs::rename(&torn, self.folder.join(name))
        })();
        if written.is_err() {
            let _ = fs::remove_file(&torn);
        }
        written
    }

    fn hash(&self, name: &str, image: &[u8]) -> Hmac<Sha256> {
        let mut hash = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes keys of any length");
        hash.update(&(name.len() as u64).to_le_bytes());
        hash.update(name.as_bytes());
        hash.update(image);
        hash
    }
}

/// The same for engines that can use each other's code.
pub(crate) fn identity(engine: &Engine) -> u64 {
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hasher.finish()
}

/// Turns bytes into executable code.
#[allow(unsafe_code, reason = "the one place where compiled code is taken as it is")]
fn map(engine: &Engine, image: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: `image` is in our own memory and was written by `precompile_component`: a moment ago in this process, or
    // by one that knew the key of a folder only this user can read, which `Cache::read` has checked, or when this binary
    // was built, which whoever made the `Images` has vouched for.
    unsafe { Component::deserialize(engine, image) }
}

/// The folder's key, made by whoever comes first; two processes that start at once end up with the same one.
fn key(folder: &Path) -> std::io::Result<[u8; 32]> {
    let path = folder.join("key");
    let mut key = [0; 32];
    for _ in 0..2 {
        match File::open(&path) {
            Ok(mut file) => match file.read_exact(&mut key) {
                Ok(()) => return Ok(key),
                // Torn by a crash while it was made: nothing was ever hashed with it.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => fs::remove_file(&path)?,
                Err(error) => return Err(error),
            },
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        File::open("/dev/urandom")?.read_exact(&mut key)?;
        let fresh = folder.join(format!(".key.{}", uuid::Uuid::new_v4()));
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&fresh)?
            .write_all(&key)?;
        // A link fails if the name is taken, so the first key stays.
        let linked = fs::hard_link(&fresh, &path);
        fs::remove_file(&fresh)?;
        match linked {
            Ok(()) => return Ok(key),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    File::open(&path)?.read_exact(&mut key)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::EngineKind;

    const EMPTY: &[u8] = b"(component)";

    fn entries(folder: &Path) -> Vec<PathBuf> {
        let all = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
        all.filter(|p| p.extension().is_some_and(|e| e == "cwasm")).collect()
    }

    #[test]
    fn what_was_compiled_once_is_found_and_what_was_altered_is_compiled_again() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("aot");
        let engine = Engine::default();
        let digest = Digest::of(EMPTY);
        let load = || {
            Cache::open(&folder, Images::default())
                .unwrap()
                .load(&engine, digest, EMPTY)
                .unwrap()
                .1
        };
        assert_eq!(load(), Origin::Compiled);
        assert_eq!(load(), Origin::Cached);

        let entry = entries(&folder).remove(0);
        let sound = fs::read(&entry).unwrap();
        for at in [0, MAGIC.len(), MAGIC.len() + TAG, sound.len() - 1] {
            let mut altered = sound.clone();
            altered[at] ^= 1;
            fs::write(&entry, altered).unwrap();
            assert_eq!(load(), Origin::Compiled, "byte {at} was altered");
            assert_eq!(load(), Origin::Cached, "and the entry replaced");
        }
        for length in [0, MAGIC.len() + 3, sound.len() / 2] {
            fs::write(&entry, &sound[..length]).unwrap();
            assert_eq!(load(), Origin::Compiled, "torn after {length} bytes");
        }
        assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(folder.join("key")).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn an_entry_of_another_digest_or_another_key_is_not_mapped() {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::default();
        let other = b"(component (core module))";
        let cache = Cache::open(folder.path(), Images::default()).unwrap();
        cache.load(&engine, Digest::of(EMPTY), EMPTY).unwrap();
        let theirs = entries(folder.path()).remove(0);
        cache.load(&engine, Digest::of(other), other).unwrap();
        let ours = folder.path().join(cache.entry(&engine, Digest::of(other)));
        fs::copy(&theirs, &ours).unwrap();
        assert_eq!(
            cache.load(&engine, Digest::of(other), other).unwrap().1,
            Origin::Compiled
        );

        fs::write(folder.path().join("key"), [7; 32]).unwrap();
        let rekeyed = Cache::open(folder.path(), Images::default()).unwrap();
        assert_eq!(
            rekeyed.load(&engine, Digest::of(EMPTY), EMPTY).unwrap().1,
            Origin::Compiled
        );
    }

    #[test]
    #[allow(unsafe_code, reason = "an image is made here and now")]
    fn an_image_serves_the_component_and_the_engine_it_was_made_for() {
        let folder = tempfile::tempdir().unwrap();
        let image = Images::compile(EMPTY, None).unwrap().expect("there was none");
        assert_eq!(
            Images::compile(EMPTY, Some(&image)).unwrap(),
            None,
            "it is there already"
        );
        let image: &'static [u8] = image.leak();
        // SAFETY: the image was compiled above.
        let images = unsafe { Images::new(&[image, &image[..20], b"something else"]) };
        let cache = Cache::open(folder.path(), images).unwrap();
        let ours = Engine::new(&crate::engine::config(EngineKind::for_component(EMPTY))).unwrap();
        let origin = |engine: &Engine, bytes: &[u8]| cache.load(engine, Digest::of(bytes), bytes).unwrap().1;
        assert_eq!(origin(&ours, EMPTY), Origin::Built);
        assert!(entries(folder.path()).is_empty(), "what the binary holds is not cached");
        assert_eq!(origin(&ours, b"(component (core module))"), Origin::Compiled);
        assert_eq!(origin(&Engine::default(), EMPTY), Origin::Compiled);
    }

    #[test]
    fn entries_of_other_versions_are_swept() {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::default();
        let cache = Cache::open(folder.path(), Images::default()).unwrap();
        cache.load(&engine, Digest::of(EMPTY), EMPTY).unwrap();
        fs::write(
            folder
                .path()
                .join(format!("{}-0123456789abcdef.cwasm", Digest::of(EMPTY).hex())),
            "old",
        )
        .unwrap();
        fs::write(folder.path().join(".half"), "fresh").unwrap();
        cache.sweep(&[&engine]);
        assert_eq!(entries(folder.path()).len(), 1);
        assert!(folder.path().join(".half").exists(), "it may be being written");
        assert_eq!(cache.load(&engine, Digest::of(EMPTY), EMPTY).unwrap().1, Origin::Cached);
    }

    #[test]
    fn a_folder_that_was_open_to_others_gets_a_new_key() {
        let folder = tempfile::tempdir().unwrap();
        let before = Cache::open(folder.path(), Images::default()).unwrap().key;
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let cache = Cache::open(folder.path(), Images::default()).unwrap();
        assert_ne!(cache.key, before);
        assert_eq!(fs::metadata(folder.path()).unwrap().mode() & 0o777, 0o700);
    }
}
