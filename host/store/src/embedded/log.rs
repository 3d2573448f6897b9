//! The log: every change, in the order of revisions, on the disk before it is acknowledged.
//!
//! A directory holds segments, `log-<revision>`, each with the changes after the revision in its name. A segment is a
//! header and frames; a frame is one group commit, written with one write and one `fdatasync`:
//!
//! ```text
//! salt u64 | revision before u64 | payload bytes u32 | changes u32 | crc of the payload u32 | crc of these 28 bytes u32
//! payload: changes, each: kind u8 | revision u64 | expires u64 | key bytes u32 | value bytes u32 | key | value
//! ```
//!
//! All numbers are little endian. Each frame names the revision it follows, so a missing frame or segment is noticed.
//! The salt is random for each store and never leaves it, so no value can be made to look like a frame.
//!
//! After a crash the last frame may be torn. It was not acknowledged, and is cut off. What cannot come from a crash (a
//! broken frame with a whole one behind it, a gap) is damage, and the store is not opened.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

use crate::tree::Change;
use crate::{Revision, StoreError};

const MAGIC: &[u8; 16] = b"pilotis log 1\n\0\0";
/// Magic, salt, revision before, crc of these.
const SEGMENT_HEADER: usize = 36;
const FRAME_HEADER: usize = 32;
const CHANGE_HEADER: usize = 25;
/// How much disk is taken at a time. Room is taken before it is written to, so that a full disk shows while there is
/// nothing to undo, and a sync need not record a new file size.
const CHUNK: u64 = 4 << 20;

const PUT: u8 = 1;
const DELETE: u8 = 2;
const COMPACT: u8 = 3;

/// What a log remembers, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Record {
    Change(Change),
    /// The history before this revision was forgotten.
    Compacted(Revision),
}

/// The open end of the log.
pub(crate) struct Log {
    dir: PathBuf,
    salt: u64,
    path: PathBuf,
    file: File,
    /// Where the next frame goes.
    end: u64,
    /// How far the file reaches on the disk.
    taken: u64,
    last: Revision,
    buffer: BytesMut,
    pub(crate) syncs: u64,
    /// Bytes appended since it was opened.
    pub(crate) written: u64,
}

/// Why a frame was not appended.
pub(crate) enum AppendError {
    /// No room. The log is as it was.
    Full(io::Error),
    /// It is not known what is on the disk: nothing may be appended any more.
    Broken(io::Error),
}

impl Log {
    /// A new, empty log that goes on after `last`.
    pub(crate) fn create(dir: &Path, salt: u64, last: Revision) -> io::Result<Self> {
        let path = dir.join(name(last));
        let file = create_segment(dir, &path, salt, last)?;
        let header = SEGMENT_HEADER as u64;
        let buffer = BytesMut::new();
        Ok(Self {
            dir: dir.into(),
            salt,
            path,
            file,
            end: header,
            taken: header,
            last,
            buffer,
            syncs: 1,
            written: 0,
        })
    }

    /// Writes the records as one frame and returns when they are on the disk. `last` is the newest revision in them.
    pub(crate) fn append(&mut self, records: &[Record], last: Revision) -> Result<(), AppendError> {
        self.buffer.clear();
        self.buffer.put_bytes(0, FRAME_HEADER);
        for record in records {
            encode(&mut self.buffer, record);
        }
        let payload = &self.buffer[FRAME_HEADER..];
        let mut header = Vec::with_capacity(FRAME_HEADER);
        header.put_u64_le(self.salt);
        header.put_u64_le(self.last.0);
        header.put_u32_le(u32::try_from(payload.len()).expect("the queue is bounded far below 4 GiB"));
        header.put_u32_le(records.len() as u32);
        header.put_u32_le(crc32fast::hash(payload));
        header.put_u32_le(crc32fast::hash(&header));
        self.buffer[..FRAME_HEADER].copy_from_slice(&header);

        self.take(self.buffer.len() as u64)?;
        if let Err(error) = self.file.write_all_at(&self.buffer, self.end) {
            // Nothing of it may stay: the next frame could be shorter, and its tail would show behind it.
            return match self.file.set_len(self.end) {
                Ok(()) if is_full(&error) => {
                    self.taken = self.end;
                    Err(AppendError::Full(error))
                }
                _ => Err(AppendError::Broken(error)),
            };
        }
        // A failed sync is never tried again: the kernel may have dropped the pages and would call the next one good.
        self.file.sync_data().map_err(AppendError::Broken)?;
        self.syncs += 1;
        self.end += self.buffer.len() as u64;
        self.written += self.buffer.len() as u64;
        self.last = last;
        if self.buffer.capacity() > CHUNK as usize {
            self.buffer = BytesMut::new();
        }
        Ok(())
    }

    /// Takes room for `more` bytes.
    fn take(&mut self, more: u64) -> Result<(), AppendError> {
        let need = self.end + more;
        if need <= self.taken {
            return Ok(());
        }
        for upto in [need + CHUNK, need] {
            match fallocate(
                self.file.as_fd(),
                FallocateFlags::empty(),
                self.taken as i64,
                (upto - self.taken) as i64,
            ) {
                Ok(()) => {
                    self.taken = upto;
                    return Ok(());
                }
                Err(Errno::ENOSPC | Errno::EDQUOT | Errno::EFBIG) if upto > need => {}
                Err(error @ (Errno::ENOSPC | Errno::EDQUOT | Errno::EFBIG)) => {
                    // Some of it may have been taken before the room ran out.
                    let _ = self.file.set_len(self.taken);
                    return Err(AppendError::Full(error.into()));
                }
                // The file system cannot take room ahead (or was interrupted): the write will show whether there is any.
                Err(_) => return Ok(()),
            }
        }
        Ok(())
    }

    /// Begins a new segment, so that the ones before it can go once a snapshot holds what they say.
    pub(crate) fn rotate(&mut self) -> io::Result<()> {
        if self.last == segment_revision(&self.path).unwrap_or_default() {
            return Ok(());
        }
        // The old one is cut to its length before the new one exists: only the last segment may have room at its end.
        self.file.set_len(self.end)?;
        self.taken = self.end;
        self.file.sync_all()?;
        let path = self.dir.join(name(self.last));
        self.file = create_segment(&self.dir, &path, self.salt, self.last)?;
        self.path = path;
        self.end = SEGMENT_HEADER as u64;
        self.taken = self.end;
        self.syncs += 3;
        Ok(())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads what was written after `revision`, hands the records on, and opens the end for appending.
    ///
    /// # Errors
    /// `Damaged`, with the place; `Unavailable` if a file cannot be read.
    pub(crate) fn recover(
        dir: &Path,
        salt: u64,
        revision: Revision,
        mut each: impl FnMut(Record),
    ) -> Result<Self, StoreError> {
        let read_error = |path: &Path| {
            let what = path.display().to_string();
            move |error: io::Error| StoreError::unavailable(what, error)
        };
        let mut segments = segments(dir).map_err(read_error(dir))?;
        if let Some((_, path)) = segments.last()
            && is_unborn(path).map_err(read_error(path))?
        {
            // The crash came while this segment was being made: nothing was ever written to it.
            fs::remove_file(path).map_err(read_error(path))?;
            segments.pop();
        }
        // A snapshot is taken a moment after its segment was begun: that segment holds some of what the snapshot does.
        let Some(begin) = segments.iter().rposition(|(first, _)| *first <= revision) else {
            return match segments.first() {
                None => Self::create(dir, salt, revision).map_err(read_error(dir)),
                Some((first, path)) => {
                    let reason = format!("the changes between revision {revision} and {first} are missing");
                    Err(StoreError::Damaged {
                        path: path.clone(),
                        reason,
                    })
                }
            };
        };
        segments.drain(..begin);
        let mut last = segments[0].0;
        let mut open = None;
        let count = segments.len();
        for (nth, (first, path)) in segments.into_iter().enumerate() {
            let damaged = |reason: String| StoreError::Damaged {
                path: path.clone(),
                reason,
            };
            if first != last {
                return Err(damaged(format!(
                    "the changes between revision {last} and {first} are missing"
                )));
            }
            let data = fs::read(&path).map_err(read_error(&path))?;
            check_header(&data, salt, first).map_err(damaged)?;
            let mut at = SEGMENT_HEADER;
            while at < data.len() {
                match frame(&data[at..], salt) {
                    Some(frame) if frame.before == last => {
                        for record in decode(frame.payload, frame.records).map_err(damaged)? {
                            if let Record::Change(change) = &record {
                                last = change.revision;
                            }
                            if last > revision || matches!(record, Record::Compacted(_)) {
                                each(record);
                            }
                        }
                        at += FRAME_HEADER + frame.payload.len();
                    }
                    Some(frame) => {
                        let before = frame.before;
                        return Err(damaged(format!("at byte {at}: follows revision {before}, not {last}")));
                    }
                    None => break,
                }
            }
            let rest = &data[at..];
            let torn = rest.iter().any(|byte| *byte != 0);
            if torn && (nth + 1 < count || (1..rest.len()).any(|skip| frame(&rest[skip..], salt).is_some())) {
                return Err(damaged(format!(
                    "at byte {at}: a broken frame, and whole ones after it"
                )));
            }
            if nth + 1 == count {
                let file = File::options()
                    .read(true)
                    .write(true)
                    .open(&path)
                    .map_err(read_error(&path))?;
                if torn {
                    tracing::warn!(path = %path.display(), at, bytes = rest.len(), "cut off a write that a crash tore");
                }
                // Also where only room was left: what is taken is known again.
                file.set_len(at as u64)
                    .and_then(|()| file.sync_all())
                    .map_err(read_error(&path))?;
                open = Some((path, file, at as u64));
            }
        }
        let (path, file, end) = open.expect("there is a last segment");
        if last < revision {
            let reason = format!("it ends at revision {last}, before the snapshot of revision {revision}");
            return Err(StoreError::Damaged { path, reason });
        }
        let buffer = BytesMut::new();
        Ok(Self {
            dir: dir.into(),
            salt,
            path,
            file,
            end,
            taken: end,
            last,
            buffer,
            syncs: 1,
            written: 0,
        })
    }

    /// Removes the segments that hold nothing after `revision`. A crash in between leaves some; the next call gets them.
    pub(crate) fn remove_through(dir: &Path, revision: Revision) -> io::Result<()> {
        let segments = segments(dir)?;
        for pair in segments.windows(2) {
            // A segment ends where the next one begins.
            if pair[1].0 <= revision {
                fs::remove_file(&pair[0].1)?;
            }
        }
        Ok(())
    }
}

fn create_segment(dir: &Path, path: &Path, salt: u64, last: Revision) -> io::Result<File> {
    let mut header = Vec::with_capacity(SEGMENT_HEADER);
    header.put_slice(MAGIC);
    header.put_u64_le(salt);
    header.put_u64_le(last.0);
    header.put_u32_le(crc32fast::hash(&header));
    let file = File::options().read(true).write(true).create_new(true).open(path)?;
    let made = file
        .write_all_at(&header, 0)
        .and_then(|()| file.sync_all())
        .and_then(|()| sync_dir(dir));
    if let Err(error) = made {
        // On a full disk: as if it had never been tried.
        let _ = fs::remove_file(path);
        return Err(error);
    }
    Ok(file)
}

/// Makes a new name in a directory last.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

fn name(last: Revision) -> String {
    format!("log-{:020}", last.0)
}

fn segment_revision(path: &Path) -> Option<Revision> {
    path.file_name()?
        .to_str()?
        .strip_prefix("log-")?
        .parse()
        .ok()
        .map(model::ResourceVersion)
}

/// In the order of their revisions.
fn segments(dir: &Path) -> io::Result<Vec<(Revision, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if let Some(revision) = segment_revision(&path) {
            found.push((revision, path));
        }
    }
    found.sort();
    Ok(found)
}

/// Whether a segment's header was never completely written.
fn is_unborn(path: &Path) -> io::Result<bool> {
    let data = fs::read(path)?;
    Ok(data.len() < SEGMENT_HEADER || data.iter().all(|byte| *byte == 0))
}

fn check_header(data: &[u8], salt: u64, first: Revision) -> Result<(), String> {
    let Some(mut header) = data.get(..SEGMENT_HEADER) else {
        return Err("it ends within its header".into());
    };
    if !header.starts_with(MAGIC) {
        return Err("it does not begin as a log of this version does".into());
    }
    let crc = crc32fast::hash(&header[..SEGMENT_HEADER - 4]);
    header.advance(MAGIC.len());
    let (found_salt, found_first, found_crc) = (header.get_u64_le(), header.get_u64_le(), header.get_u32_le());
    if found_crc != crc || found_first != first.0 {
        return Err("its header is broken".into());
    }
    if found_salt != salt {
        return Err("it belongs to another store".into());
    }
    Ok(())
}

struct Frame<'a> {
    before: Revision,
    records: u32,
    payload: &'a [u8],
}

/// The frame at the beginning of `data`, if a whole one is there.
fn frame(data: &[u8], salt: u64) -> Option<Frame<'_>> {
    let mut header = data.get(..FRAME_HEADER)?;
    if header.get_u64_le() != salt
        || crc32fast::hash(&data[..FRAME_HEADER - 4]) != data[FRAME_HEADER - 4..].as_ref().get_u32_le()
    {
        return None;
    }
    let before = model::ResourceVersion(header.get_u64_le());
    let (bytes, records, crc) = (header.get_u32_le(), header.get_u32_le(), header.get_u32_le());
    let payload = data.get(FRAME_HEADER..FRAME_HEADER + bytes as usize)?;
    (crc32fast::hash(payload) == crc).then_some(Frame {
        before,
        records,
        payload,
    })
}

fn encode(buffer: &mut BytesMut, record: &Record) {
    let (kind, revision, expires, key, value): (u8, _, _, &[u8], &[u8]) = match record {
        Record::Compacted(revision) => (COMPACT, revision, 0, &[], &[]),
        Record::Change(Change {
            key,
            revision,
            value: Some(value),
            expires,
        }) => (PUT, revision, *expires, key, value),
        Record::Change(Change {
            key,
            revision,
            value: None,
            ..
        }) => (DELETE, revision, 0, key, &[]),
    };
    buffer.reserve(CHANGE_HEADER + key.len() + value.len());
    buffer.put_u8(kind);
    buffer.put_u64_le(revision.0);
    buffer.put_u64_le(expires);
    buffer.put_u32_le(key.len() as u32);
    buffer.put_u32_le(value.len() as u32);
    buffer.put_slice(key);
    buffer.put_slice(value);
}

fn decode(mut payload: &[u8], count: u32) -> Result<Vec<Record>, String> {
    let broken = || "a frame is whole but does not read".to_owned();
    let mut records = Vec::with_capacity(count.min(65_536) as usize);
    for _ in 0..count {
        if payload.len() < CHANGE_HEADER {
            return Err(broken());
        }
        let kind = payload.get_u8();
        let revision = model::ResourceVersion(payload.get_u64_le());
        let expires = payload.get_u64_le();
        let (key, value) = (payload.get_u32_le() as usize, payload.get_u32_le() as usize);
        if payload.len() < key.saturating_add(value) {
            return Err(broken());
        }
        // Copies, so that a small key does not keep a whole segment in memory.
        let key = Bytes::copy_from_slice(&payload[..key]);
        let value_bytes = Bytes::copy_from_slice(&payload[key.len()..key.len() + value]);
        payload.advance(key.len() + value);
        records.push(match kind {
            PUT => Record::Change(Change {
                key,
                revision,
                value: Some(value_bytes),
                expires,
            }),
            DELETE => Record::Change(Change {
                key,
                revision,
                value: None,
                expires: 0,
            }),
            COMPACT => Record::Compacted(revision),
            _ => return Err(broken()),
        });
    }
    if payload.is_empty() { Ok(records) } else { Err(broken()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(revision: u64, value: &[u8]) -> Record {
        let value = Some(Bytes::copy_from_slice(value));
        Record::Change(Change {
            key: Bytes::from_static(b"/k"),
            revision: model::ResourceVersion(revision),
            value,
            expires: 0,
        })
    }

    fn append(log: &mut Log, revision: u64) {
        let value = vec![revision as u8; 300];
        assert!(
            log.append(&[put(revision, &value)], model::ResourceVersion(revision))
                .is_ok()
        );
    }

    fn recover(dir: &Path) -> Result<Vec<u64>, StoreError> {
        let mut found = Vec::new();
        Log::recover(dir, 7, Revision::default(), |record| {
            if let Record::Change(change) = record {
                found.push(change.revision.0);
            }
        })?;
        Ok(found)
    }

    /// A segment with three frames, without the room at its end, and where its frames begin.
    fn three(dir: &Path) -> (PathBuf, Vec<u8>, Vec<usize>) {
        let mut log = Log::create(dir, 7, Revision::default()).unwrap();
        let mut starts = Vec::new();
        for revision in 1..=3 {
            starts.push(log.end as usize);
            append(&mut log, revision);
        }
        let path = log.path().to_owned();
        let data = fs::read(&path).unwrap()[..log.end as usize].to_vec();
        (path, data, starts)
    }

    #[test]
    fn a_tail_torn_anywhere_is_cut_off_and_the_rest_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (path, data, starts) = three(dir.path());
        for length in starts[2]..data.len() {
            for room in [0, 1, 5000] {
                let mut torn = data[..length].to_vec();
                torn.resize(length + room, 0);
                fs::write(&path, &torn).unwrap();
                // Some zeros may be the frame's own: what follows the cut decides.
                let whole = torn.starts_with(&data);
                assert_eq!(
                    recover(dir.path()).unwrap(),
                    if whole { vec![1, 2, 3] } else { vec![1, 2] },
                    "cut at {length}"
                );
            }
        }
        // Written out of order: the end of the frame is there, a sector in its middle is not.
        let mut torn = data.clone();
        torn[starts[2] + 40..starts[2] + 140].fill(0);
        fs::write(&path, &torn).unwrap();
        assert_eq!(recover(dir.path()).unwrap(), [1, 2]);
        assert_eq!(
            fs::metadata(&path).unwrap().len() as usize,
            starts[2],
            "what was torn is gone from the file"
        );
    }

    #[test]
    fn a_flipped_bit_in_acknowledged_data_is_never_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let (path, data, starts) = three(dir.path());
        for byte in (0..starts[2]).step_by(3) {
            let mut flipped = data.clone();
            flipped[byte] ^= 0x10;
            fs::write(&path, &flipped).unwrap();
            assert!(
                matches!(recover(dir.path()), Err(StoreError::Damaged { .. })),
                "byte {byte}"
            );
        }
    }

    #[test]
    fn a_missing_segment_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::create(dir.path(), 7, Revision::default()).unwrap();
        for revision in 1..=6 {
            append(&mut log, revision);
            if revision % 2 == 0 {
                log.rotate().unwrap();
            }
        }
        assert_eq!(recover(dir.path()).unwrap(), [1, 2, 3, 4, 5, 6]);
        fs::remove_file(dir.path().join(name(model::ResourceVersion(2)))).unwrap();
        assert!(matches!(recover(dir.path()), Err(StoreError::Damaged { .. })));
    }

    #[test]
    fn a_segment_that_was_being_made_when_the_crash_came_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        three(dir.path());
        for leftover in [&b""[..], b"pilotis", &[0; SEGMENT_HEADER]] {
            fs::write(dir.path().join(name(model::ResourceVersion(3))), leftover).unwrap();
            assert_eq!(recover(dir.path()).unwrap(), [1, 2, 3]);
        }
    }
}
