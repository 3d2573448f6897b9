//! What one client may take of the server at once, and who came up against it.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use model::Failure;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A watch whose client has left an event unread for so long shows in the figures.
const UNREAD: Duration = Duration::from_secs(30);
/// Users that are named in the figures; all others are counted as one, so that who makes up names cannot fill the memory.
const NAMED: usize = 1000;
const OTHERS: &str = "(others)";

/// Requests that change something have their own share, so that a storm of reads cannot keep a kubelet from reporting.
pub(crate) struct Limits {
    share: (usize, usize),
    reading: Arc<Semaphore>,
    changing: Arc<Semaphore>,
    watches_each: usize,
    watches: Mutex<Watches>,
    reached: Mutex<BTreeMap<(Limit, String), u64>>,
    started: Instant,
}

/// What was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Limit {
    /// Requests at once; the client is told to come back.
    Requests,
    /// Watches of one user at once; it is told to come back.
    Watches,
    /// The size of a body; it was not read.
    BodySize,
    /// The time for one request, its body included: a client that announced more than it sends ends here.
    RequestTime,
    /// A watch lost its place, as its client read too slowly; it was ended, and the client lists again.
    WatchBehind,
}

impl Limit {
    fn as_str(self) -> &'static str {
        match self {
            Limit::Requests => "requests",
            Limit::Watches => "watches",
            Limit::BodySize => "body_size",
            Limit::RequestTime => "request_time",
            Limit::WatchBehind => "watch_behind",
        }
    }
}

#[derive(Default)]
struct Watches {
    next: u64,
    open: HashMap<u64, Arc<Watch>>,
    by_user: HashMap<String, usize>,
}

impl Watches {
    /// How many of each user's have left an event unread for at least `pause`.
    fn unread(&self, now: u64, pause: Duration) -> BTreeMap<&str, usize> {
        let mut unread = BTreeMap::new();
        for watch in self.open.values() {
            let since = watch.unread.load(Relaxed);
            if since == 0 || u128::from(now.saturating_sub(since)) < pause.as_millis() {
                continue;
            }
            let user = watch.user.as_str();
            let named = unread.len() < NAMED || unread.contains_key(user);
            *unread.entry(if named { user } else { OTHERS }).or_default() += 1;
        }
        unread
    }
}

struct Watch {
    user: String,
    /// Milliseconds from the server's start to when an event was handed out that was not yet sent; 0: nothing waits.
    unread: AtomicU64,
}

/// Counts as a watch of its user until it is dropped.
pub(crate) struct OpenWatch {
    limits: Arc<Limits>,
    id: u64,
    watch: Arc<Watch>,
}

impl Limits {
    /// `reading` and `changing`: requests at once; `watches_each`: open watches of one user.
    pub(crate) fn new((reading, changing): (usize, usize), watches_each: usize) -> Arc<Self> {
        Arc::new(Self {
            share: (reading, changing),
            reading: Arc::new(Semaphore::new(reading)),
            changing: Arc::new(Semaphore::new(changing)),
            watches_each,
            watches: Mutex::default(),
            reached: Mutex::default(),
            started: Instant::now(),
        })
    }

    /// # Errors
    /// `TooManyRequests` when the share is used up.
    pub(crate) fn enter(&self, user: &str, reads: bool) -> Result<OwnedSemaphorePermit, Failure> {
        let share = if reads { &self.reading } else { &self.changing };
        share.clone().try_acquire_owned().map_err(|_| {
            self.reached(Limit::Requests, user);
            later("Too many requests, please try again later.".into())
        })
    }

    /// # Errors
    /// `TooManyRequests` when the user has too many open already.
    pub(crate) fn watch(self: &Arc<Self>, user: &str) -> Result<OpenWatch, Failure> {
        let mut watches = self.watches();
        let count = watches.by_user.entry(user.to_owned()).or_default();
        if *count >= self.watches_each {
            drop(watches);
            self.reached(Limit::Watches, user);
            return Err(later(format!(
                "{user} has {} watches open, and no user may have more; close some, or share one among readers",
                self.watches_each
            )));
        }
        *count += 1;
        let watch = Arc::new(Watch {
            user: user.to_owned(),
            unread: AtomicU64::new(0),
        });
        let id = watches.next;
        watches.next += 1;
        watches.open.insert(id, watch.clone());
        drop(watches);
        Ok(OpenWatch {
            limits: self.clone(),
            id,
            watch,
        })
    }

    pub(crate) fn reached(&self, limit: Limit, user: &str) {
        let mut reached = self.reached.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (limit, user.to_owned());
        if reached.len() < NAMED || reached.contains_key(&key) {
            *reached.entry(key).or_default() += 1;
        } else {
            *reached.entry((limit, OTHERS.to_owned())).or_default() += 1;
        }
    }

    /// For `/metrics`.
    pub(crate) fn text(&self, text: &mut String) {
        // Writing to a String cannot fail.
        text.push_str("# TYPE apiserver_current_inflight_requests gauge\n");
        let free = (self.reading.available_permits(), self.changing.available_permits());
        for (kind, share, free) in [("readOnly", self.share.0, free.0), ("mutating", self.share.1, free.1)] {
            let now = share.saturating_sub(free);
            let _ = writeln!(
                text,
                "apiserver_current_inflight_requests{{request_kind=\"{kind}\"}} {now}"
            );
        }
        let watches = self.watches();
        let open = watches.open.len();
        let _ = writeln!(
            text,
            "# TYPE apiserver_longrunning_requests gauge\napiserver_longrunning_requests{{verb=\"watch\"}} {open}"
        );
        text.push_str("# HELP pilotis_apiserver_unread_watches Watches whose client has left an event unread for over 30 seconds.\n");
        text.push_str("# TYPE pilotis_apiserver_unread_watches gauge\n");
        for (user, count) in watches.unread(self.now(), UNREAD) {
            let _ = writeln!(
                text,
                "pilotis_apiserver_unread_watches{{user=\"{}\"}} {count}",
                escaped(user)
            );
        }
        drop(watches);
        text.push_str("# HELP pilotis_apiserver_limited_total Requests that came up against a limit.\n");
        text.push_str("# TYPE pilotis_apiserver_limited_total counter\n");
        let reached = self.reached.lock().unwrap_or_else(PoisonError::into_inner);
        for ((limit, user), count) in &*reached {
            let (limit, user) = (limit.as_str(), escaped(user));
            let _ = writeln!(
                text,
                "pilotis_apiserver_limited_total{{limit=\"{limit}\",user=\"{user}\"}} {count}"
            );
        }
    }

    fn watches(&self) -> MutexGuard<'_, Watches> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Milliseconds since the start, from 1 on.
    fn now(&self) -> u64 {
        self.started.elapsed().as_millis() as u64 + 1
    }
}

impl OpenWatch {
    pub(crate) fn user(&self) -> &str {
        &self.watch.user
    }

    /// An event was handed to the connection.
    pub(crate) fn handed(&self) {
        self.watch.unread.store(self.limits.now(), Relaxed);
    }

    /// The connection has room again.
    pub(crate) fn taken(&self) {
        self.watch.unread.store(0, Relaxed);
    }
}

impl Drop for OpenWatch {
    fn drop(&mut self) {
        let mut watches = self.limits.watches();
        watches.open.remove(&self.id);
        if let Some(count) = watches.by_user.get_mut(&self.watch.user) {
            *count -= 1;
            if *count == 0 {
                watches.by_user.remove(&self.watch.user);
            }
        }
    }
}

fn later(reason: String) -> Failure {
    Failure::TooManyRequests {
        reason,
        retry_after: Duration::from_secs(1),
        causes: Vec::new(),
    }
}

/// As a label's value in the text format of Prometheus.
fn escaped(user: &str) -> String {
    user.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(limits: &Limits, of: &str) -> Vec<String> {
        let mut text = String::new();
        limits.text(&mut text);
        let lines = text.lines().filter(|line| line.starts_with(of));
        lines.map(str::to_owned).collect()
    }

    #[test]
    fn each_user_has_its_own_number_of_watches() {
        let limits = Limits::new((1, 1), 2);
        let (a, b) = (limits.watch("a").unwrap(), limits.watch("a").unwrap());
        let refused = limits.watch("a").map(drop).unwrap_err();
        assert!(matches!(refused, Failure::TooManyRequests { .. }), "{refused}");
        let other = limits.watch("b").unwrap();
        assert_eq!(
            lines(&limits, "apiserver_longrunning"),
            ["apiserver_longrunning_requests{verb=\"watch\"} 3"]
        );
        drop((a, other));
        let again = limits.watch("a").unwrap();
        assert_eq!(
            lines(&limits, "pilotis_apiserver_limited"),
            ["pilotis_apiserver_limited_total{limit=\"watches\",user=\"a\"} 1"]
        );
        drop((b, again));
        assert!(limits.watches().by_user.is_empty());
    }

    #[test]
    fn an_event_that_nobody_takes_shows() {
        let limits = Limits::new((1, 1), 2);
        let watch = limits.watch("the \"slow\" one").unwrap();
        let unread = |pause| {
            let watches = limits.watches();
            let unread = watches.unread(limits.now(), pause);
            unread.get("the \"slow\" one").copied().unwrap_or(0)
        };
        assert_eq!(unread(Duration::ZERO), 0, "nothing was handed out");
        watch.handed();
        assert_eq!((unread(Duration::ZERO), unread(UNREAD)), (1, 0));
        watch.taken();
        assert_eq!(unread(Duration::ZERO), 0);
        assert_eq!(escaped("the \"slow\" one"), "the \\\"slow\\\" one");
    }

    #[test]
    fn made_up_names_do_not_fill_the_memory() {
        let limits = Limits::new((0, 0), 1);
        for n in 0..NAMED + 10 {
            assert!(limits.enter(&format!("user-{n}"), true).is_err());
        }
        let reached = limits.reached.lock().unwrap();
        assert_eq!(reached.len(), NAMED + 1);
        assert_eq!(reached[&(Limit::Requests, OTHERS.to_owned())], 10);
    }
}
