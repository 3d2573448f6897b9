//! `clock.reached`: wakes a reading when its time comes. One task for all; it sleeps until the first of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::wake::{Reading, Why};

/// Milliseconds since 1970. Tests give their own.
pub type Now = Arc<dyn Fn() -> i64 + Send + Sync>;

/// The machine's clock.
pub fn system_time() -> Now {
    Arc::new(|| {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.map_or(0, |since| since.as_millis() as i64)
    })
}

#[derive(Default)]
pub(crate) struct Timers {
    due: Mutex<BTreeMap<(i64, u64), Weak<Reading>>>,
    sooner: Notify,
}

impl Timers {
    pub(crate) fn add(&self, at: i64, reading: &Arc<Reading>) {
        let mut due = self.due.lock();
        due.insert((at, reading.id), Arc::downgrade(reading));
        if due
            .first_key_value()
            .is_some_and(|(first, _)| *first == (at, reading.id))
        {
            self.sooner.notify_one();
        }
    }

    pub(crate) fn remove(&self, at: i64, reading: u64) {
        self.due.lock().remove(&(at, reading));
    }

    pub(crate) async fn run(timers: Weak<Timers>, now: Now) {
        while let Some(timers) = timers.upgrade() {
            let time = now();
            let mut came = Vec::new();
            let wait = {
                let mut due = timers.due.lock();
                while let Some(first) = due.first_entry().filter(|first| first.key().0 <= time) {
                    came.push((first.key().0, first.remove()));
                }
                due.first_key_value()
                    .map(|((at, _), _)| Duration::from_millis((at - time).max(1) as u64))
            };
            for (at, reading) in came {
                if let Some(reading) = reading.upgrade() {
                    reading.wake(Why::TimeCame(at));
                }
            }
            match wait {
                Some(wait) => {
                    let _ = tokio::time::timeout(wait, timers.sooner.notified()).await;
                }
                None => timers.sooner.notified().await,
            }
        }
    }
}
