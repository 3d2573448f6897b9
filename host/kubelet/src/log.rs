//! Container logs in the format of the CRI: `2026-01-02T03:04:05.000000006Z stdout F line`, a file an attempt.
//!
//! Written by the container runtime (or our Wasm shim), read by `kubectl logs`. `P` marks a line that goes on in the next.

use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use client::node::{LogOptions, LogStream};
use futures::StreamExt;
use jiff::Timestamp;
use model::Failure;
use tokio::sync::mpsc;

/// Longer lines are cut into `P` entries.
pub const MAX_ENTRY: usize = 16 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// One entry, ready to be appended. `content` has no newline.
pub fn entry(at: Timestamp, stream: Stream, partial: bool, content: &[u8]) -> Vec<u8> {
    let stream = if stream == Stream::Stdout { "stdout" } else { "stderr" };
    let tag = if partial { 'P' } else { 'F' };
    let mut line = format!("{} {stream} {tag} ", at.strftime("%Y-%m-%dT%H:%M:%S.%9fZ")).into_bytes();
    line.extend_from_slice(content);
    line.push(b'\n');
    line
}

/// An entry as read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry<'a> {
    time: &'a str,
    partial: bool,
    content: &'a [u8],
}

/// `None` for a line that is no entry: the end of a file cut by a crash.
fn parse(line: &[u8]) -> Option<Entry<'_>> {
    let mut parts = line.splitn(4, |b| *b == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let (_stream, tag, content) = (parts.next()?, parts.next()?, parts.next()?);
    Some(Entry {
        time,
        partial: tag.first() == Some(&b'P'),
        content,
    })
}

/// Where the logs of one container lie: `FOLDER/ATTEMPT.log`, and `ATTEMPT.log.1` before it when it was rotated.
pub fn attempts(folder: &Path) -> Vec<(u32, PathBuf)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = entries
        .filter_map(|e| {
            let name = e.file_name();
            Some((name.to_str()?.strip_suffix(".log")?.parse().ok()?, e.path()))
        })
        .collect();
    found.sort();
    found
}

/// Whether the container still writes; asked again when the end of a followed log is reached.
pub type Alive = Box<dyn Fn() -> futures::future::BoxFuture<'static, bool> + Send + Sync>;

/// Reads one log. Files are read on a thread of their own, so a slow disk holds nobody up.
pub fn read(path: PathBuf, options: LogOptions, alive: Alive) -> LogStream {
    let (send, receive) = mpsc::channel::<Result<Bytes, Failure>>(8);
    tokio::spawn(async move {
        if let Err(e) = follow(path, options, alive, &send).await {
            let _ = send.send(Err(Failure::internal(e))).await;
        }
    });
    tokio_stream::wrappers::ReceiverStream::new(receive).boxed()
}

const POLL: Duration = Duration::from_millis(100);

async fn follow(
    path: PathBuf,
    options: LogOptions,
    alive: Alive,
    send: &mpsc::Sender<Result<Bytes, Failure>>,
) -> io::Result<()> {
    let (at, tail) = (path.clone(), options.tail_lines);
    let opened = tokio::task::spawn_blocking(move || {
        let rotated = at.with_extension("log.1");
        let first = std::fs::File::open(&at)?;
        // The older half is needed only when the newer has fewer lines than were asked for.
        let mut files = Vec::new();
        let mut start = 0;
        let mut left = tail;
        if let Some(wanted) = tail {
            let (offset, lines) = tail_offset(&first, wanted)?;
            start = offset;
            left = Some(wanted - lines);
        }
        if left != Some(0)
            && let Ok(older) = std::fs::File::open(&rotated)
        {
            let from = match left {
                Some(wanted) => tail_offset(&older, wanted)?.0,
                None => 0,
            };
            files.push((older, from));
        }
        files.push((first, start));
        io::Result::Ok(files)
    });
    let mut files = opened.await.map_err(io::Error::other)??;
    let mut out = Output {
        options: &options,
        left: options.limit_bytes,
        mid_line: false,
        send,
    };
    let (mut current, mut offset) = files.pop().expect("the newest file was opened");
    for (older, from) in files {
        let mut reader = Lines::new(older, from);
        while let Some(chunk) = reader.next().await? {
            if !out.entries(&chunk).await {
                return Ok(());
            }
        }
    }
    loop {
        let mut reader = Lines::new(current, offset);
        while let Some(chunk) = reader.next().await? {
            if !out.entries(&chunk).await {
                return Ok(());
            }
        }
        if !options.follow {
            return Ok(());
        }
        // Asked before the last look, so that what was written before the end is read.
        let alive = alive().await;
        let more = tokio::select! {
            more = reader.grown(&path, alive) => more?,
            () = send.closed() => return Ok(()),
        };
        match more {
            More::Same => {}
            More::Rotated(file) => {
                while let Some(chunk) = reader.next().await? {
                    if !out.entries(&chunk).await {
                        return Ok(());
                    }
                }
                (current, offset) = (file, 0);
                continue;
            }
            More::End => return Ok(()),
        }
        (current, offset) = reader.into_parts();
    }
}

enum More {
    Same,
    Rotated(std::fs::File),
    End,
}

/// Whole lines of a file, as many at once as were read.
struct Lines {
    file: Option<std::fs::File>,
    offset: u64,
}

impl Lines {
    fn new(file: std::fs::File, offset: u64) -> Self {
        Self {
            file: Some(file),
            offset,
        }
    }

    fn into_parts(self) -> (std::fs::File, u64) {
        (self.file.expect("given back after each read"), self.offset)
    }

    /// The next lines, each with its newline; `None` at the present end.
    async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut file = self.file.take().expect("given back after each read");
        let offset = self.offset;
        let work = tokio::task::spawn_blocking(move || {
            let mut size = 64 * 1024;
            loop {
                let mut buffer = vec![0; size];
                file.seek(SeekFrom::Start(offset))?;
                let mut filled = 0;
                while filled < size {
                    match file.read(&mut buffer[filled..])? {
                        0 => break,
                        n => filled += n,
                    }
                }
                buffer.truncate(filled);
                match buffer.iter().rposition(|b| *b == b'\n') {
                    Some(last) => {
                        buffer.truncate(last + 1);
                        return io::Result::Ok((file, Some(buffer)));
                    }
                    None if filled < size => return Ok((file, None)),
                    // Entries are short by construction; a foreign runtime may write longer ones.
                    None => size *= 2,
                }
            }
        });
        let (file, lines) = work.await.map_err(io::Error::other)??;
        self.file = Some(file);
        self.offset += lines.as_ref().map_or(0, |l| l.len() as u64);
        Ok(lines)
    }

    /// Waits until there is more to read, or knows that there will not be.
    async fn grown(&self, path: &Path, alive: bool) -> io::Result<More> {
        use std::os::unix::fs::MetadataExt;
        let file = self.file.as_ref().expect("given back after each read");
        let here = file.metadata()?;
        if here.len() > self.offset {
            return Ok(More::Same);
        }
        if let Ok(there) = tokio::fs::metadata(path).await
            && there.ino() != here.ino()
        {
            return Ok(More::Rotated(std::fs::File::open(path)?));
        }
        if !alive {
            return Ok(More::End);
        }
        tokio::time::sleep(POLL).await;
        Ok(More::Same)
    }
}

/// Entries as a person wants them.
struct Output<'a> {
    options: &'a LogOptions,
    left: Option<u64>,
    mid_line: bool,
    send: &'a mpsc::Sender<Result<Bytes, Failure>>,
}

impl Output<'_> {
    /// `false`: enough, or nobody listens.
    async fn entries(&mut self, lines: &[u8]) -> bool {
        let mut out = BytesMut::with_capacity(lines.len());
        for line in lines.split(|b| *b == b'\n') {
            let Some(entry) = parse(line) else { continue };
            if let Some(since) = self.options.since
                && entry
                    .time
                    .parse::<Timestamp>()
                    .is_ok_and(|t| t.as_nanosecond() < i128::from(since))
            {
                continue;
            }
            if self.options.timestamps && !self.mid_line {
                out.extend_from_slice(entry.time.as_bytes());
                out.extend_from_slice(b" ");
            }
            out.extend_from_slice(entry.content);
            if !entry.partial {
                out.extend_from_slice(b"\n");
            }
            self.mid_line = entry.partial;
        }
        if let Some(left) = &mut self.left {
            out.truncate(usize::try_from(*left).unwrap_or(usize::MAX).min(out.len()));
            *left -= out.len() as u64;
        }
        (out.is_empty() || self.send.send(Ok(out.freeze())).await.is_ok()) && self.left != Some(0)
    }
}

/// Where the last `wanted` whole lines begin, and how many of them there are.
fn tail_offset(file: &std::fs::File, wanted: u64) -> io::Result<(u64, u64)> {
    let mut file = file.try_clone()?;
    let mut at = file.seek(SeekFrom::End(0))?;
    // What was read of a line whose beginning lies before it.
    let mut carry: Vec<u8> = Vec::new();
    let mut lines = 0;
    // An entry marked `P` belongs to the line that the next `F` ends, so only those are counted.
    let mut one_too_many = |line: &[u8]| {
        let ends_a_line = parse(line.strip_suffix(b"\n").unwrap_or(line)).is_some_and(|e| !e.partial);
        lines += u64::from(ends_a_line);
        lines > wanted
    };
    while at > 0 {
        let from = at.saturating_sub(64 * 1024);
        let mut block = vec![0; (at - from) as usize];
        file.seek(SeekFrom::Start(from))?;
        file.read_exact(&mut block)?;
        block.append(&mut carry);
        let mut stop = block.len();
        while let Some(before) = block[..stop.saturating_sub(1)].iter().rposition(|b| *b == b'\n') {
            if one_too_many(&block[before + 1..stop]) {
                return Ok((from + stop as u64, wanted));
            }
            stop = before + 1;
        }
        block.truncate(stop);
        carry = block;
        at = from;
    }
    if one_too_many(&carry) {
        return Ok((carry.len() as u64, wanted));
    }
    Ok((0, lines))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn still() -> Alive {
        Box::new(|| Box::pin(async { false }))
    }

    async fn text(path: &Path, options: LogOptions) -> String {
        let mut stream = read(path.into(), options, still());
        let mut all = Vec::new();
        while let Some(chunk) = stream.next().await {
            all.extend_from_slice(&chunk.unwrap());
        }
        String::from_utf8(all).unwrap()
    }

    #[tokio::test]
    async fn options_choose_what_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let mut bytes = Vec::new();
        for (second, partial, content) in [(1, false, "one"), (2, true, "tw"), (2, false, "o"), (3, false, "three")] {
            bytes.extend(entry(at(second), Stream::Stdout, partial, content.as_bytes()));
        }
        bytes.extend_from_slice(b"1970-01-01T00:0");
        std::fs::write(&path, bytes).unwrap();
        let all = LogOptions::default();
        assert_eq!(text(&path, all.clone()).await, "one\ntwo\nthree\n");
        for (lines, expected) in [(0, ""), (1, "three\n"), (2, "two\nthree\n"), (9, "one\ntwo\nthree\n")] {
            assert_eq!(
                text(
                    &path,
                    LogOptions {
                        tail_lines: Some(lines),
                        ..all.clone()
                    }
                )
                .await,
                expected
            );
        }
        let since = Some(at(3).as_nanosecond() as i64);
        assert_eq!(text(&path, LogOptions { since, ..all.clone() }).await, "three\n");
        assert_eq!(
            text(
                &path,
                LogOptions {
                    limit_bytes: Some(5),
                    ..all.clone()
                }
            )
            .await,
            "one\nt"
        );
        let stamped = text(
            &path,
            LogOptions {
                timestamps: true,
                tail_lines: Some(2),
                ..all
            },
        )
        .await;
        assert_eq!(
            stamped,
            "1970-01-01T00:00:02.000000000Z two\n1970-01-01T00:00:03.000000000Z three\n"
        );
    }

    #[tokio::test]
    async fn tail_reaches_into_the_rotated_half_and_over_blocks() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let lines = |from: usize, to: usize| {
            (from..to)
                .flat_map(|n| entry(at(1), Stream::Stdout, false, format!("line {n:05}").as_bytes()))
                .collect::<Vec<_>>()
        };
        std::fs::write(dir.path().join("0.log.1"), lines(0, 3000)).unwrap();
        std::fs::write(&path, lines(3000, 3010)).unwrap();
        let tail = text(
            &path,
            LogOptions {
                tail_lines: Some(2500),
                ..LogOptions::default()
            },
        )
        .await;
        assert_eq!(tail.lines().count(), 2500);
        assert!(tail.starts_with("line 00510\n") && tail.ends_with("line 03009\n"));
    }

    #[tokio::test]
    async fn a_followed_log_ends_with_its_container() {
        use std::io::Write;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let mut file = std::fs::File::create(&path).unwrap();
        file.write_all(&entry(at(1), Stream::Stdout, false, b"first")).unwrap();
        let (ended, watch) = tokio::sync::watch::channel(false);
        let alive: Alive = Box::new(move || {
            let ended = *watch.borrow();
            Box::pin(async move { !ended })
        });
        let mut stream = read(
            path.clone(),
            LogOptions {
                follow: true,
                ..LogOptions::default()
            },
            alive,
        );
        assert_eq!(stream.next().await.unwrap().unwrap(), "first\n");
        file.write_all(&entry(at(2), Stream::Stderr, false, b"second")).unwrap();
        assert_eq!(stream.next().await.unwrap().unwrap(), "second\n");
        std::fs::rename(&path, path.with_extension("log.1")).unwrap();
        std::fs::write(&path, entry(at(3), Stream::Stdout, false, b"third")).unwrap();
        assert_eq!(stream.next().await.unwrap().unwrap(), "third\n");
        ended.send(true).unwrap();
        assert!(stream.next().await.is_none());
    }
}
