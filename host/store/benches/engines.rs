//! Which engine `embedded` stands on: kept crates beside a plain log, each with the least that a versioned store needs.
//!
//! `cargo bench -p store --features peers --bench engines [-- DIR]`. Every engine gets the same load from the same group
//! commit: 1,000 tasks that each write a 1 KB value and wait until it is on the disk. An engine is asked only to keep
//! `key, revision → value` durably; what it would need beyond that (reads of the previous version, a log for watchers,
//! compaction) is left out in favour of the kept crates; `fjall-store` has it, to show what it costs. Each runs in a process of its own, so that memory and disk
//! traffic are its own. One JSON object a line.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fjall::{Database, KeyspaceCreateOptions, PersistMode};
use parking_lot::{Condvar, Mutex};
use redb::{Durability, ReadableDatabase, ReadableTableMetadata, TableDefinition};
use rusqlite::Connection;
use tokio::sync::oneshot;

type Fallible<T> = Result<T, Box<dyn Error + Send + Sync>>;

const WRITERS: u64 = 1000;
const KEYS: u64 = 20_000;
const SECONDS: u64 = 5;

/// Writes a batch durably. What is asked of an engine, and no more.
trait Engine: Send {
    fn commit(&mut self, batch: &[Put]) -> Fallible<()>;
}

struct Put {
    key: Vec<u8>,
    revision: u64,
    value: Vec<u8>,
}

impl Put {
    /// The key of one version, so that a key's versions lie side by side in order.
    fn versioned(&self) -> Vec<u8> {
        let mut key = self.key.clone();
        key.push(0);
        key.extend_from_slice(&self.revision.to_be_bytes());
        key
    }
}

struct Log {
    file: File,
    index: BTreeMap<Vec<u8>, (u64, Vec<u8>)>,
    buffer: Vec<u8>,
}

impl Log {
    fn open(dir: &Path) -> Fallible<Self> {
        let path = dir.join("log");
        let mut index = BTreeMap::new();
        if let Ok(old) = fs::read(&path) {
            let mut at = 0;
            while at < old.len() {
                let number = |i: usize| u32::from_le_bytes(old[at + i..at + i + 4].try_into().expect("four bytes"));
                let (crc, key, value) = (number(0), number(4) as usize, number(8) as usize);
                let body = &old[at + 12..at + 20 + key + value];
                assert_eq!(crc, crc32fast::hash(body));
                let revision = u64::from_le_bytes(body[..8].try_into().expect("eight bytes"));
                index.insert(body[8..8 + key].to_vec(), (revision, body[8 + key..].to_vec()));
                at += 20 + key + value;
            }
        }
        let file = File::options().create(true).append(true).open(path)?;
        Ok(Self {
            file,
            index,
            buffer: Vec::new(),
        })
    }
}

impl Engine for Log {
    fn commit(&mut self, batch: &[Put]) -> Fallible<()> {
        self.buffer.clear();
        for put in batch {
            let start = self.buffer.len();
            self.buffer.extend_from_slice(&[0; 4]);
            self.buffer.extend_from_slice(&(put.key.len() as u32).to_le_bytes());
            self.buffer.extend_from_slice(&(put.value.len() as u32).to_le_bytes());
            self.buffer.extend_from_slice(&put.revision.to_le_bytes());
            self.buffer.extend_from_slice(&put.key);
            self.buffer.extend_from_slice(&put.value);
            let crc = crc32fast::hash(&self.buffer[start + 12..]);
            self.buffer[start..start + 4].copy_from_slice(&crc.to_le_bytes());
        }
        self.file.write_all(&self.buffer)?;
        self.file.sync_data()?;
        for put in batch {
            self.index.insert(put.key.clone(), (put.revision, put.value.clone()));
        }
        Ok(())
    }
}

struct Fjall {
    database: Database,
    versions: fjall::Keyspace,
}

impl Fjall {
    fn open(dir: &Path) -> Fallible<Self> {
        let database = Database::builder(dir).open()?;
        let versions = database.keyspace("versions", KeyspaceCreateOptions::default)?;
        Ok(Self { database, versions })
    }
}

impl Engine for Fjall {
    fn commit(&mut self, batch: &[Put]) -> Fallible<()> {
        let mut writes = self.database.batch().durability(Some(PersistMode::SyncData));
        for put in batch {
            writes.insert(&self.versions, put.versioned(), put.value.as_slice());
        }
        Ok(writes.commit()?)
    }
}

/// fjall with all that the contract asks for: a log that watchers read from, and older versions dropped in time (here at
/// once, which is the least that compaction can cost). The newest revisions are kept in memory, as a comparison needs.
struct FjallStore {
    database: Database,
    versions: fjall::Keyspace,
    changes: fjall::Keyspace,
    newest: BTreeMap<Vec<u8>, u64>,
}

impl FjallStore {
    fn open(dir: &Path) -> Fallible<Self> {
        let database = Database::builder(dir).open()?;
        let versions = database.keyspace("versions", KeyspaceCreateOptions::default)?;
        let changes = database.keyspace("changes", KeyspaceCreateOptions::default)?;
        Ok(Self {
            database,
            versions,
            changes,
            newest: BTreeMap::new(),
        })
    }
}

impl Engine for FjallStore {
    fn commit(&mut self, batch: &[Put]) -> Fallible<()> {
        let mut writes = self.database.batch().durability(Some(PersistMode::SyncData));
        for put in batch {
            writes.insert(&self.versions, put.versioned(), put.value.as_slice());
            writes.insert(&self.changes, put.revision.to_be_bytes(), put.key.as_slice());
            if let Some(old) = self.newest.insert(put.key.clone(), put.revision) {
                let old_version = Put {
                    key: put.key.clone(),
                    revision: old,
                    value: Vec::new(),
                }
                .versioned();
                writes.remove(&self.versions, old_version);
                writes.remove(&self.changes, old.to_be_bytes());
            }
        }
        Ok(writes.commit()?)
    }
}

struct Redb(redb::Database);

const VERSIONS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("versions");

impl Redb {
    fn open(dir: &Path) -> Fallible<Self> {
        let database = redb::Database::create(dir.join("redb"))?;
        if let Ok(table) = database.begin_read()?.open_table(VERSIONS) {
            table.len()?;
        }
        Ok(Self(database))
    }
}

impl Engine for Redb {
    fn commit(&mut self, batch: &[Put]) -> Fallible<()> {
        let mut writes = self.0.begin_write()?;
        writes.set_durability(Durability::Immediate)?;
        {
            let mut table = writes.open_table(VERSIONS)?;
            for put in batch {
                table.insert(put.versioned().as_slice(), put.value.as_slice())?;
            }
        }
        Ok(writes.commit()?)
    }
}

struct Sqlite(Connection);

impl Sqlite {
    fn open(dir: &Path) -> Fallible<Self> {
        let connection = Connection::open(dir.join("sqlite"))?;
        // FULL: the log is synced at every commit, as an acknowledged write demands.
        connection.execute_batch(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;
             CREATE TABLE IF NOT EXISTS versions (key BLOB, revision INTEGER, value BLOB, PRIMARY KEY (key, revision)) WITHOUT ROWID;",
        )?;
        Ok(Self(connection))
    }
}

impl Engine for Sqlite {
    fn commit(&mut self, batch: &[Put]) -> Fallible<()> {
        let writes = self.0.transaction()?;
        {
            let mut insert = writes.prepare_cached("INSERT INTO versions VALUES (?1, ?2, ?3)")?;
            for put in batch {
                insert.execute((&put.key, put.revision as i64, &put.value))?;
            }
        }
        Ok(writes.commit()?)
    }
}

fn open(name: &str, dir: &Path) -> Fallible<Box<dyn Engine>> {
    Ok(match name {
        "log" => Box::new(Log::open(dir)?),
        "fjall" => Box::new(Fjall::open(dir)?),
        "fjall-store" => Box::new(FjallStore::open(dir)?),
        "redb" => Box::new(Redb::open(dir)?),
        "sqlite" => Box::new(Sqlite::open(dir)?),
        _ => return Err(format!("no engine is called {name}").into()),
    })
}

/// A write and who waits for it.
type Waiting = (Put, oneshot::Sender<()>);

#[derive(Default)]
struct Queue {
    /// And whether there will be no more.
    waiting: Mutex<(Vec<Waiting>, bool)>,
    filled: Condvar,
}

fn run(name: &str, dir: &Path) -> Fallible<()> {
    fs::create_dir_all(dir)?;
    let mut engine = open(name, dir)?;
    let memory_before = resident();
    let queue = Arc::new(Queue::default());
    let writer = {
        let queue = queue.clone();
        std::thread::spawn(move || -> Fallible<(u64, u64)> {
            let (mut revision, mut commits) = (0, 0);
            loop {
                let taken = {
                    let mut waiting = queue.waiting.lock();
                    while waiting.0.is_empty() && !waiting.1 {
                        queue.filled.wait(&mut waiting);
                    }
                    std::mem::take(&mut waiting.0)
                };
                if taken.is_empty() {
                    return Ok((revision, commits));
                }
                let (mut batch, senders): (Vec<_>, Vec<_>) = taken.into_iter().unzip();
                for put in &mut batch {
                    revision += 1;
                    put.revision = revision;
                }
                engine.commit(&batch)?;
                commits += 1;
                for sender in senders {
                    // A writer waits for its answer.
                    sender.send(()).map_err(|()| "a writer is gone")?;
                }
            }
        })
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build()?;
    let began = Instant::now();
    let mut waits: Vec<Duration> = runtime.block_on(async {
        let tasks: Vec<_> = (0..WRITERS)
            .map(|n| {
                let queue = queue.clone();
                tokio::spawn(async move {
                    let (mut state, mut waits) = (n + 1, Vec::new());
                    while began.elapsed().as_secs() < SECONDS {
                        let key = format!(
                            "/registry/pods/namespace-{}/pod-{:06}",
                            n % 50,
                            random(&mut state) % KEYS
                        );
                        let put = Put {
                            key: key.into(),
                            revision: 0,
                            value: value(&mut state),
                        };
                        let (sender, done) = oneshot::channel();
                        let sent = Instant::now();
                        queue.waiting.lock().0.push((put, sender));
                        queue.filled.notify_one();
                        if done.await.is_err() {
                            break;
                        }
                        waits.push(sent.elapsed());
                    }
                    waits
                })
            })
            .collect();
        let mut all = Vec::new();
        for task in tasks {
            all.extend(task.await.expect("a writer does not panic"));
        }
        all
    });
    let elapsed = began.elapsed().as_secs_f64();
    queue.waiting.lock().1 = true;
    queue.filled.notify_one();
    let memory = resident().saturating_sub(memory_before);
    let (writes, commits) = writer.join().expect("the writer does not panic")?;
    let written = written_bytes();
    waits.sort_unstable();
    let began = Instant::now();
    drop(open(name, dir)?);
    let report = |what: &str, value: f64, unit: &str| {
        println!(r#"{{"bench":"engines","what":"{name} {what}","value":{value:.2},"unit":"{unit}"}}"#);
    };
    report(
        "durable writes, 1000 writers, 1 KB",
        writes as f64 / elapsed,
        "writes/s",
    );
    report("wait p50", waits[waits.len() / 2].as_secs_f64() * 1e3, "ms");
    report("wait p99", waits[waits.len() * 99 / 100].as_secs_f64() * 1e3, "ms");
    report("writes per commit", writes as f64 / commits as f64, "writes");
    report(
        "written to disk per byte of value",
        written as f64 / (writes as f64 * 1024.0),
        "bytes",
    );
    report("memory grown", memory as f64 / 1e6, "MB");
    report("opened again in", began.elapsed().as_secs_f64() * 1e3, "ms");
    Ok(())
}

/// Text that compresses about as well as an object's JSON.
fn value(state: &mut u64) -> Vec<u8> {
    let mut value = Vec::with_capacity(1024);
    while value.len() < 1024 {
        write!(value, r#""field-{}":"{:016x}","#, value.len() % 40, random(state)).expect("memory takes it");
    }
    value.truncate(1024);
    value
}

fn random(state: &mut u64) -> u64 {
    *state = state
        .wrapping_mul(6364136223846793005)
        .wrapping_add(1442695040888963407);
    *state >> 20
}

fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    status
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok())
        .unwrap_or_default()
        * 4096
}

fn written_bytes() -> u64 {
    let io = fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|bytes| bytes.parse().ok()).unwrap_or_default()
}

fn main() -> Fallible<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    if let [run_one, name, dir] = &arguments[..]
        && run_one == "run"
    {
        return run(name, Path::new(dir));
    }
    // Beside the build, which is on a disk; /tmp is memory on some machines.
    let parent = arguments
        .first()
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    for name in ["log", "fjall", "fjall-store", "redb", "sqlite"] {
        let dir = tempfile::tempdir_in(&parent)?;
        let status = Command::new(std::env::current_exe()?)
            .args(["run", name])
            .arg(dir.path())
            .status()?;
        if !status.success() {
            return Err(format!("{name}: {status}").into());
        }
    }
    Ok(())
}
