//! One watch of the fake: a place in its log.

use std::sync::{Arc, Mutex};

use model::{Failure, GroupResource, ResourceVersion};
use tokio::sync::watch;

use super::document::selected;
use super::lock;
use super::state::{Change, State};
use crate::{Collection, WatchEvent, WatchOptions};

pub(super) struct Watcher {
    pub(super) at: usize,
    pub(super) broken: u64,
    pub(super) ended: bool,
    pub(super) resource: GroupResource,
    pub(super) of: Collection,
    pub(super) options: WatchOptions,
    /// The newest version a bookmark has told.
    pub(super) told: u64,
    pub(super) state: Arc<Mutex<State>>,
    pub(super) moved: watch::Receiver<u64>,
}

impl Watcher {
    /// The next event; `None` once the watch has ended, with an error or without.
    pub(super) async fn next(&mut self) -> Option<Result<WatchEvent, Failure>> {
        loop {
            if self.ended {
                return None;
            }
            self.moved.borrow_and_update();
            match self.ready() {
                Some(Ok(event)) => return Some(Ok(event)),
                Some(Err(failure)) => {
                    self.ended = true;
                    return Some(Err(failure));
                }
                None if self.ended => return None,
                None => self.moved.changed().await.ok()?,
            }
        }
    }

    fn ready(&mut self) -> Option<Result<WatchEvent, Failure>> {
        let state = lock(&self.state);
        if state.broken != self.broken {
            self.ended = true;
            return state.ending.map(|failure| Err(failure()));
        }
        let limit = state
            .held_at
            .get(&self.resource.to_string())
            .copied()
            .unwrap_or(u64::MAX);
        while let Some(change) = state.log.get(self.at).filter(|change| change.version <= limit) {
            self.at += 1;
            if change.new.key.resource != self.resource {
                continue;
            }
            if self
                .of
                .namespace
                .as_ref()
                .is_some_and(|n| change.new.key.namespace != n.as_str())
            {
                continue;
            }
            match seen(change, &self.options) {
                Ok(Some(event)) => {
                    self.told = change.version;
                    return Some(Ok(event));
                }
                Ok(None) => {}
                Err(failure) => return Some(Err(failure)),
            }
        }
        // A watch that has nothing to tell still tells how far it is: whoever waits for a version needs that.
        let reached = state.version.min(limit);
        if self.options.bookmarks && reached > self.told {
            self.told = reached;
            let version = ResourceVersion(reached);
            return Some(Ok(WatchEvent::Bookmark {
                version,
                initial_events_end: false,
            }));
        }
        None
    }
}

/// The change as a watcher with these selectors sees it.
fn seen(change: &Change, options: &WatchOptions) -> Result<Option<WatchEvent>, Failure> {
    let matches = |object| selected(object, &options.labels, &options.fields);
    let before = match &change.old {
        Some(old) => matches(old)?,
        None => false,
    };
    let after = !change.deleted && matches(&change.new)?;
    let object = change.new.clone();
    Ok(match (before, after) {
        (false, true) => Some(WatchEvent::Added(object)),
        (true, true) => Some(WatchEvent::Modified(object)),
        (true, false) => Some(WatchEvent::Deleted(object)),
        (false, false) => None,
    })
}
