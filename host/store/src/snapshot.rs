//! Everything alive at one revision, in a file: what a log may begin after, and what a backup is.
//!
//! ```text
//! magic 16 bytes | revision u64 | crc of these u32
//! blocks: payload bytes u32 | entries u32 | crc of the payload u32 | payload
//!         payload: entries, each: created u64 | modified u64 | expires u64 | key bytes u32 | value bytes u32 | key | value
//! end:    0 u32 | entries in all u64 | crc of these u32
//! ```
//!
//! Little endian, keys in order. A file without its end is not whole; the name without `.partial` is given to whole ones.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes};

use crate::{Entry, Revision, StoreError};

const MAGIC: &[u8; 16] = b"pilotis copy 1\n\0";
const HEADER: usize = 28;
const ENTRY_HEADER: usize = 32;
const BLOCK: usize = 64 << 10;
/// How much is written between two syncs. The disk is the log's first: on a journalling file system its syncs wait for
/// what others have written, so that is kept little, and after each sync the disk is left alone for twice its time.
const SYNC_EVERY: usize = 1 << 20;
const LONGEST_REST: Duration = Duration::from_millis(100);
/// The largest block that is believed: one entry of the largest size.
const LARGEST: usize = BLOCK + crate::MAX_KEY + crate::MAX_VALUE + ENTRY_HEADER;

/// A snapshot being written. Dropped before [`Writer::finish`], it leaves nothing.
pub(crate) struct Writer {
    file: File,
    partial: PathBuf,
    path: PathBuf,
    block: Vec<u8>,
    in_block: u32,
    entries: u64,
    unsynced: usize,
    finished: bool,
}

impl Writer {
    pub(crate) fn create(path: &Path, revision: Revision) -> io::Result<Self> {
        if path.exists() {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "the file exists; it is not overwritten",
            ));
        }
        let mut name = path.file_name().map_or_else(OsString::new, ToOwned::to_owned);
        name.push(".partial");
        let partial = path.with_file_name(name);
        let mut header = Vec::with_capacity(HEADER);
        header.put_slice(MAGIC);
        header.put_u64_le(revision.0);
        header.put_u32_le(crc32fast::hash(&header));
        let mut file = File::create(&partial)?;
        file.write_all(&header)?;
        let path = path.to_owned();
        let block = Vec::with_capacity(BLOCK);
        Ok(Self {
            file,
            partial,
            path,
            block,
            in_block: 0,
            entries: 0,
            unsynced: 0,
            finished: false,
        })
    }

    /// Adds the next entry in the order of keys. `expires` in milliseconds since 1970, 0: never.
    pub(crate) fn add(&mut self, entry: &Entry, expires: u64) -> io::Result<()> {
        self.block.put_u64_le(entry.created.0);
        self.block.put_u64_le(entry.modified.0);
        self.block.put_u64_le(expires);
        self.block.put_u32_le(entry.key.len() as u32);
        self.block.put_u32_le(entry.value.len() as u32);
        self.block.put_slice(&entry.key);
        self.block.put_slice(&entry.value);
        self.in_block += 1;
        self.entries += 1;
        if self.block.len() >= BLOCK {
            self.flush()
        } else {
            Ok(())
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.in_block == 0 {
            return Ok(());
        }
        let mut header = Vec::with_capacity(12);
        header.put_u32_le(self.block.len() as u32);
        header.put_u32_le(self.in_block);
        header.put_u32_le(crc32fast::hash(&self.block));
        self.file.write_all(&header)?;
        self.file.write_all(&self.block)?;
        self.unsynced += self.block.len();
        self.block.clear();
        self.in_block = 0;
        if self.unsynced >= SYNC_EVERY {
            let began = Instant::now();
            self.file.sync_data()?;
            std::thread::sleep((began.elapsed() * 2).min(LONGEST_REST));
            self.unsynced = 0;
        }
        Ok(())
    }

    /// Makes it whole and gives it its name.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        let mut end = Vec::with_capacity(16);
        end.put_u32_le(0);
        end.put_u64_le(self.entries);
        end.put_u32_le(crc32fast::hash(&end));
        self.file.write_all(&end)?;
        self.file.sync_all()?;
        fs::rename(&self.partial, &self.path)?;
        self.finished = true;
        let dir = self
            .path
            .parent()
            .filter(|dir| !dir.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        File::open(dir)?.sync_all()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.finished {
            let _ = fs::remove_file(&self.partial);
        }
    }
}

/// The revision that a snapshot says it is of.
pub(crate) fn revision(path: &Path) -> Result<Revision, StoreError> {
    Ok(begin(path)?.1)
}

fn damaged(path: &Path, reason: &str) -> StoreError {
    StoreError::Damaged {
        path: path.to_owned(),
        reason: reason.to_owned(),
    }
}

fn failed(path: &Path, error: io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => damaged(path, "it ends too early"),
        _ => StoreError::unavailable(path.display().to_string(), error),
    }
}

fn begin(path: &Path) -> Result<(BufReader<File>, Revision), StoreError> {
    let file = File::open(path).map_err(|error| failed(path, error))?;
    let mut file = BufReader::with_capacity(256 << 10, file);
    let mut header = [0; HEADER];
    file.read_exact(&mut header).map_err(|error| failed(path, error))?;
    if !header.starts_with(MAGIC) {
        return Err(damaged(path, "it does not begin as a snapshot of this version does"));
    }
    if (&header[24..]).get_u32_le() != crc32fast::hash(&header[..24]) {
        return Err(damaged(path, "its header is broken"));
    }
    Ok((file, model::ResourceVersion((&header[16..]).get_u64_le())))
}

/// Reads a whole snapshot, handing each entry on with its expiry, and says its revision.
///
/// # Errors
/// `Damaged` if anything in it does not read as it was written; `Unavailable` if it cannot be read.
pub(crate) fn read(path: &Path, mut each: impl FnMut(Entry, u64)) -> Result<Revision, StoreError> {
    let (damaged, failed) = (|reason| damaged(path, reason), |error| failed(path, error));
    let (mut file, revision) = begin(path)?;
    let mut entries: u64 = 0;
    let mut payload = Vec::new();
    loop {
        let mut size = [0; 4];
        file.read_exact(&mut size).map_err(failed)?;
        let size = u32::from_le_bytes(size) as usize;
        if size == 0 {
            let mut end = [0; 12];
            file.read_exact(&mut end).map_err(failed)?;
            let mut checked = vec![0; 4];
            checked.extend_from_slice(&end[..8]);
            if (&end[8..]).get_u32_le() != crc32fast::hash(&checked) || (&end[..8]).get_u64_le() != entries {
                return Err(damaged("its end is broken"));
            }
            return Ok(revision);
        }
        let mut rest = [0; 8];
        file.read_exact(&mut rest).map_err(failed)?;
        let (count, crc) = ((&rest[..4]).get_u32_le(), (&rest[4..]).get_u32_le());
        if size > LARGEST {
            return Err(damaged("a block's header is broken"));
        }
        payload.resize(size, 0);
        file.read_exact(&mut payload).map_err(failed)?;
        if crc32fast::hash(&payload) != crc {
            return Err(damaged("a block is broken"));
        }
        let mut left = payload.as_slice();
        for _ in 0..count {
            let (entry, expires) = entry(&mut left).ok_or_else(|| damaged("a block is whole but does not read"))?;
            each(entry, expires);
            entries += 1;
        }
        if !left.is_empty() {
            return Err(damaged("a block is whole but does not read"));
        }
    }
}

fn entry(left: &mut &[u8]) -> Option<(Entry, u64)> {
    if left.len() < ENTRY_HEADER {
        return None;
    }
    let created = model::ResourceVersion(left.get_u64_le());
    let modified = model::ResourceVersion(left.get_u64_le());
    let expires = left.get_u64_le();
    let (key, value) = (left.get_u32_le() as usize, left.get_u32_le() as usize);
    let (key_bytes, value_bytes) = (left.get(..key)?, left.get(key..key.checked_add(value)?)?);
    let entry = Entry {
        key: Bytes::copy_from_slice(key_bytes),
        value: Bytes::copy_from_slice(value_bytes),
        created,
        modified,
    };
    left.advance(key + value);
    Some((entry, expires))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries() -> Vec<(Entry, u64)> {
        let revision = model::ResourceVersion;
        let entry = |n: u64| Entry {
            key: format!("/registry/{n:04}").into(),
            value: vec![n as u8; n as usize * 7].into(),
            created: revision(n + 1),
            modified: revision(n + 2),
        };
        (0..300).map(|n| (entry(n), n % 3)).collect()
    }

    fn write(path: &Path) {
        let mut writer = Writer::create(path, model::ResourceVersion(400)).unwrap();
        for (entry, expires) in entries() {
            writer.add(&entry, expires).unwrap();
        }
        writer.finish().unwrap();
    }

    #[test]
    fn reads_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("copy");
        write(&path);
        let mut found = Vec::new();
        let revision = read(&path, |entry, expires| found.push((entry, expires))).unwrap();
        assert_eq!((revision.0, found), (400, entries()));
        assert!(
            Writer::create(&path, revision).is_err(),
            "a file that is there is not overwritten"
        );
    }

    #[test]
    fn a_cut_or_a_flipped_bit_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("copy");
        write(&path);
        let data = fs::read(&path).unwrap();
        let broken = dir.path().join("broken");
        for at in (0..data.len()).step_by(997).chain([data.len() - 1]) {
            fs::write(&broken, &data[..at]).unwrap();
            assert!(
                matches!(read(&broken, |_, _| ()), Err(StoreError::Damaged { .. })),
                "cut at {at}"
            );
            let mut flipped = data.clone();
            flipped[at] ^= 4;
            fs::write(&broken, &flipped).unwrap();
            assert!(
                matches!(read(&broken, |_, _| ()), Err(StoreError::Damaged { .. })),
                "flipped at {at}"
            );
        }
    }

    #[test]
    fn one_that_was_given_up_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        drop(Writer::create(&dir.path().join("copy"), Revision::default()).unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
