//! The durable engine in this process: a log on the disk, the keys in memory, a snapshot now and then.
//!
//! Start at [`open`]. In its directory lie
//! - `lock`: held while the store is open, so that two processes never write it;
//! - `identity`: the store's salt (see `log.rs`);
//! - `log-<revision>`: the changes after a revision;
//! - `snapshot-<revision>`: everything alive at a revision. It is written when the log has grown to the size of what
//!   is alive, so a change is written about twice in its life; then the log before it goes.
//!
//! To open is to read the newest snapshot and the log after it. A crash at any point leaves one of: the state before, the
//! state after, or a file that the next opening removes.

pub(crate) mod log;

use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use log::{AppendError, Log, Record, is_full, sync_dir};

use crate::engine::{History, Journal, LocalStore, Shared};
use crate::tree::Tree;
use crate::{Revision, StoreError, snapshot};

/// How much further than its backup a restored store begins: more than can have been issued after the backup was made
/// (at 100,000 changes a second, four months of them).
pub const RESTORE_RAISES_BY: u64 = 1 << 40;

#[derive(Debug, Clone)]
pub struct Options {
    pub history: History,
    /// The log may grow to this many bytes, or to the size of what is alive if that is more, before a snapshot replaces it.
    pub log_bytes: u64,
}

impl Default for Options {
    /// A log of 32 MiB: read in well under a second at the next start.
    fn default() -> Self {
        Self {
            history: History::default(),
            log_bytes: 32 << 20,
        }
    }
}

/// Opens the store in `dir`, or makes a new one there. Reads files: call it where blocking is fine.
///
/// # Errors
/// `InUse` while another process has it open, `Damaged` if its files are not what was written, `Full`, `Unavailable`.
pub fn open(dir: &Path, options: Options) -> Result<LocalStore, StoreError> {
    let failed = |error: io::Error| failure(dir, error);
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(failed)?;
    let lock = lock(dir)?;
    let salt = identity(dir)?;
    let mut tree = Tree::new();
    let mut snapshots = snapshots(dir).map_err(failed)?;
    if let Some((named, path)) = snapshots.pop() {
        let revision = snapshot::read(&path, |entry, expires| tree.load(entry, expires))?;
        if revision != named {
            return Err(StoreError::Damaged {
                path,
                reason: format!("it says that it is of revision {revision}"),
            });
        }
        tree.revision = revision;
        tree.floor = revision;
    }
    let base = tree.revision;
    let mut recent = Vec::new();
    let log = Log::recover(dir, salt, base, |record| match record {
        Record::Change(change) => recent.push(Arc::new(tree.apply(change))),
        Record::Compacted(floor) => tree.floor = tree.floor.max(floor),
    })?;
    recent.retain(|event| event.revision > tree.floor);
    // What a crash left between a snapshot and the end of its tidying up.
    for (_, path) in snapshots {
        fs::remove_file(path).map_err(failed)?;
    }
    Log::remove_through(dir, base).map_err(failed)?;
    let journal = DiskJournal {
        log,
        since_snapshot: 0,
        next_at: options.log_bytes,
        log_bytes: options.log_bytes,
        snapshot: None,
        shared: None,
        dir: dir.into(),
        _lock: lock,
    };
    LocalStore::start(tree, recent, Some(Box::new(journal)), options.history)
        .map_err(|error| StoreError::unavailable("a thread for the store", error))
}

/// Makes a new store in `dir` of a backup, and says at which revision it begins.
///
/// That is far beyond any revision the lost store can have issued ([`RESTORE_RAISES_BY`]), and the past before it counts as
/// compacted: every client that remembers a revision lists again instead of missing what the restore undid.
///
/// # Errors
/// `Damaged` if the backup is; `Unavailable` if `dir` has a store already; `Full`.
pub fn restore(backup: &Path, dir: &Path) -> Result<Revision, StoreError> {
    let failed = |error: io::Error| failure(dir, error);
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(failed)?;
    let _lock = lock(dir)?;
    let has_store = fs::read_dir(dir)
        .map_err(failed)?
        .flatten()
        .any(|file| file.file_name() != "lock");
    if has_store {
        let taken = io::Error::new(
            io::ErrorKind::AlreadyExists,
            "there are files in it; restore into an empty directory",
        );
        return Err(StoreError::unavailable(
            format!("the directory {}", dir.display()),
            taken,
        ));
    }
    let mut revision = snapshot::revision(backup)?;
    revision.0 += RESTORE_RAISES_BY;
    let mut writer = snapshot::Writer::create(&dir.join(snapshot_name(revision)), revision).map_err(failed)?;
    let mut written = Ok(());
    snapshot::read(backup, |entry, expires| {
        if written.is_ok() {
            written = writer.add(&entry, expires);
        }
    })?;
    // The store exists from the rename in here on, whole.
    written.and_then(|()| writer.finish()).map_err(failed)?;
    Ok(revision)
}

fn failure(path: &Path, error: io::Error) -> StoreError {
    match is_full(&error) {
        true => StoreError::Full {
            path: path.to_owned(),
            source: error,
        },
        false => StoreError::unavailable(path.display().to_string(), error),
    }
}

/// The kernel lets go of the lock when the process ends, however it ends.
#[derive(Debug)]
struct Lock(File);

impl Drop for Lock {
    /// By name, not by closing the file: a child that another thread has just forked holds a copy of it until it becomes
    /// its own program, and would hold the lock as long.
    fn drop(&mut self) {
        if let Err(error) = self.0.unlock() {
            tracing::warn!(%error, "the store's lock ends with the process only");
        }
    }
}

fn lock(dir: &Path) -> Result<Lock, StoreError> {
    let path = dir.join("lock");
    let failed = |error: io::Error| failure(&path, error);
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::Error(error)) => return Err(failed(error)),
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            let holder = if holder.is_empty() {
                holder
            } else {
                format!(" (process {})", holder.trim())
            };
            return Err(StoreError::InUse {
                path: dir.to_owned(),
                holder,
            });
        }
    }
    file.set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(failed)?;
    Ok(Lock(file))
}

/// Reads the store's salt, or makes one up for a new store.
fn identity(dir: &Path) -> Result<u64, StoreError> {
    const FIRST_LINE: &str = "pilotis store 1";
    let path = dir.join("identity");
    let failed = |error: io::Error| failure(&path, error);
    match fs::read_to_string(&path) {
        Ok(text) => {
            let mut lines = text.lines();
            let salt = (lines.next() == Some(FIRST_LINE))
                .then(|| lines.next()?.strip_prefix("salt "))
                .flatten();
            salt.and_then(|salt| u64::from_str_radix(salt, 16).ok())
                .ok_or_else(|| StoreError::Damaged {
                    path: path.clone(),
                    reason: "it does not read as the identity of a store of this version".into(),
                })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let has_log = fs::read_dir(dir).map_err(failed)?.flatten();
            if has_log
                .into_iter()
                .any(|file| file.file_name().to_string_lossy().starts_with("log-"))
            {
                let reason = "it is missing, though the store's log is there".into();
                return Err(StoreError::Damaged { path, reason });
            }
            let mut salt = [0; 8];
            File::open("/dev/urandom")
                .and_then(|mut source| source.read_exact(&mut salt))
                .map_err(failed)?;
            // Never zero, which is what a hole in a file reads as.
            let salt = u64::from_le_bytes(salt) | 1;
            let partial = dir.join("identity.partial");
            let mut file = File::create(&partial).map_err(failed)?;
            writeln!(file, "{FIRST_LINE}\nsalt {salt:016x}")
                .and_then(|()| file.sync_all())
                .map_err(failed)?;
            fs::rename(&partial, &path)
                .and_then(|()| sync_dir(dir))
                .map_err(failed)?;
            Ok(salt)
        }
        Err(error) => Err(failed(error)),
    }
}

fn snapshot_name(revision: Revision) -> String {
    format!("snapshot-{:020}", revision.0)
}

/// The whole ones, in the order of their revisions. Removes those that were never finished.
fn snapshots(dir: &Path) -> io::Result<Vec<(Revision, PathBuf)>> {
    let mut found = Vec::new();
    for file in fs::read_dir(dir)? {
        let path = file?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(revision) = name.strip_prefix("snapshot-") else {
            continue;
        };
        match revision.parse() {
            Ok(revision) => found.push((model::ResourceVersion(revision), path)),
            Err(_) if name.ends_with(".partial") => fs::remove_file(path)?,
            Err(_) => {}
        }
    }
    found.sort();
    Ok(found)
}

struct DiskJournal {
    log: Log,
    since_snapshot: u64,
    /// When `since_snapshot` comes to this, it is time for one.
    next_at: u64,
    log_bytes: u64,
    snapshot: Option<JoinHandle<io::Result<()>>>,
    /// To tell a snapshot that is being written to stop.
    shared: Option<Arc<Shared>>,
    dir: PathBuf,
    /// Let go of last.
    _lock: Lock,
}

impl Journal for DiskJournal {
    fn append(&mut self, records: &[Record], last: Revision) -> Result<(), AppendError> {
        let before = self.log.written;
        let appended = self.log.append(records, last);
        self.since_snapshot += self.log.written - before;
        appended
    }

    fn tend(&mut self, shared: &Arc<Shared>) {
        if self.snapshot.as_ref().is_some_and(JoinHandle::is_finished) {
            let done = self.snapshot.take().map(JoinHandle::join);
            if let Some(Ok(Err(error))) = done {
                // The log goes on from where the snapshot was to be; both are read at the next opening.
                tracing::warn!(%error, "no snapshot of the store could be written; trying again when the log has grown");
            }
        }
        if self.snapshot.is_some() || self.since_snapshot < self.next_at {
            return;
        }
        let begun = self.begin_snapshot(shared);
        self.next_at = self.log_bytes.max(shared.tree.read().live_bytes);
        self.since_snapshot = 0;
        match begun {
            Ok(thread) => self.snapshot = Some(thread),
            Err(error) => tracing::warn!(%error, "no snapshot of the store could be begun"),
        }
    }

    fn path(&self) -> &Path {
        self.log.path()
    }

    fn syncs(&self) -> u64 {
        self.log.syncs
    }
}

impl DiskJournal {
    /// From here on the log is in a new segment; the older ones go when the snapshot is whole.
    fn begin_snapshot(&mut self, shared: &Arc<Shared>) -> io::Result<JoinHandle<io::Result<()>>> {
        self.log.rotate()?;
        let (shared, dir) = (shared.clone(), self.dir.clone());
        self.shared = Some(shared.clone());
        std::thread::Builder::new()
            .name("store-snapshot".into())
            .spawn(move || {
                let create = |revision| snapshot::Writer::create(&dir.join(snapshot_name(revision)), revision);
                let revision = shared.snapshot(create)?;
                for (older, path) in snapshots(&dir)? {
                    if older < revision {
                        fs::remove_file(path)?;
                    }
                }
                Log::remove_through(&dir, revision)
            })
    }
}

impl Drop for DiskJournal {
    fn drop(&mut self) {
        // The directory must be quiet before the lock goes.
        if let Some(thread) = self.snapshot.take() {
            if let Some(shared) = &self.shared {
                shared.stopping.store(true, Ordering::Relaxed);
            }
            let _ = thread.join();
        }
    }
}
