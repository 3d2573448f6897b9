//! The audit log in a file: a JSON line for each event, written by a thread of its own.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Event, Sink};

/// Lines that wait for the disk. Half a kilobyte each.
const WAITING: usize = 8192;
/// How often the log of this process says that lines were dropped.
const SAY_AGAIN: Duration = Duration::from_secs(10);

/// Appends to a file that only its owner may read. A line that finds the queue full is dropped and counted: no request
/// waits for the log. Dropping the value writes what waits.
pub struct FileLog {
    /// `None` only while it is dropped.
    to: Option<SyncSender<String>>,
    dropped: Arc<AtomicU64>,
    writer: Option<JoinHandle<()>>,
}

impl FileLog {
    /// # Errors
    /// When the file cannot be opened for appending.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().create(true).append(true).mode(0o600).open(path)?;
        Self::to(file)
    }

    fn to(out: impl Write + Send + 'static) -> io::Result<Self> {
        let (to, lines) = sync_channel(WAITING);
        let dropped = Arc::new(AtomicU64::new(0));
        let counted = dropped.clone();
        let writer = std::thread::Builder::new().name("audit-log".into());
        let writer = writer.spawn(move || write(&lines, BufWriter::new(out), &counted))?;
        Ok(Self {
            to: Some(to),
            dropped,
            writer: Some(writer),
        })
    }
}

impl Sink for FileLog {
    fn record(&self, event: &Event) {
        let line = event.json() + "\n";
        if self.to.as_ref().is_none_or(|to| to.try_send(line).is_err()) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for FileLog {
    fn drop(&mut self) {
        drop(self.to.take());
        if let Some(writer) = self.writer.take() {
            // It panics over nothing; if it did, the lines are lost already.
            let _ = writer.join();
        }
    }
}

/// Until nobody records any more. Flushes whenever nothing waits, so that a reader is not behind for long.
fn write(lines: &Receiver<String>, mut out: impl Write, dropped: &AtomicU64) {
    let (mut lost, mut said) = (0, None::<Instant>);
    while let Ok(first) = lines.recv() {
        let result = out.write_all(first.as_bytes()).and_then(|()| {
            lines.try_iter().try_for_each(|line| out.write_all(line.as_bytes()))?;
            out.flush()
        });
        if let Err(error) = &result {
            // One at least; what else was in the buffer is not known.
            dropped.fetch_add(1, Ordering::Relaxed);
            if said.is_none_or(|said| said.elapsed() >= SAY_AGAIN) {
                tracing::error!(%error, "the audit log cannot be written");
            }
        }
        let now = dropped.load(Ordering::Relaxed);
        if now > lost && said.is_none_or(|said| said.elapsed() >= SAY_AGAIN) {
            tracing::error!(dropped = now - lost, all = now, "events are missing in the audit log");
            (lost, said) = (now, Some(Instant::now()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Condvar, Mutex};

    use jiff::Timestamp;
    use serde_json::Value;

    use super::*;
    use crate::audit::{ObjectRef, ResponseStatus};

    fn event(verb: &str) -> Event {
        Event {
            audit_id: "1".into(),
            stage: "ResponseComplete",
            request_uri: "/api/v1/namespaces/default/pods/a".into(),
            verb: verb.into(),
            user: model::UserInfo::default(),
            impersonated_user: None,
            source_ips: Vec::new(),
            user_agent: String::new(),
            object_ref: Some(ObjectRef {
                resource: "pods".into(),
                namespace: "default".into(),
                name: "a".into(),
                api_version: "v1".into(),
                ..ObjectRef::default()
            }),
            response_status: ResponseStatus { code: 200 },
            request_received_timestamp: Timestamp::UNIX_EPOCH,
            stage_timestamp: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn every_event_is_a_line_and_a_second_start_appends() {
        let folder = std::env::temp_dir().join(format!("pilotis-audit-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("audit.log");
        for verbs in [["get", "list"], ["watch", "create"]] {
            let log = FileLog::open(&path).unwrap();
            verbs.iter().for_each(|verb| log.record(&event(verb)));
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&path).unwrap());
        std::fs::remove_dir_all(&folder).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let verbs: Vec<&str> = lines.iter().map(|line| line["verb"].as_str().unwrap()).collect();
        assert_eq!(verbs, ["get", "list", "watch", "create"]);
        assert_eq!(
            (&lines[0]["kind"], &lines[0]["apiVersion"]),
            (&"Event".into(), &"audit.k8s.io/v1".into())
        );
        assert_eq!(
            (&lines[0]["level"], &lines[0]["objectRef"]["name"]),
            (&"Metadata".into(), &"a".into())
        );
        assert_eq!(mode & 0o777, 0o600);
    }

    /// A disk that hangs until it is told to go on.
    #[derive(Clone, Default)]
    struct Disk(Arc<(Mutex<bool>, Condvar)>);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (works, changed) = &*self.0;
            let _works = changed.wait_while(works.lock().unwrap(), |works| !*works).unwrap();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_disk_that_hangs_holds_up_nobody_and_what_is_lost_is_counted() {
        let disk = Disk::default();
        let log = FileLog::to(disk.clone()).unwrap();
        // More than the queue and the writer's buffer take.
        let many = 2 * WAITING as u64;
        (0..many).for_each(|_| log.record(&event("get")));
        let dropped = log.dropped.load(Ordering::Relaxed);
        assert!(0 < dropped && dropped < many, "{dropped}");
        *disk.0.0.lock().unwrap() = true;
        disk.0.1.notify_all();
    }
}
