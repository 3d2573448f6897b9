//! Watches: first what there is or what was missed, then what comes, with bookmarks between.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use client::{Collection, Target, WatchEvent, WatchOptions, WatchStream};
use futures::StreamExt;
use futures::stream;
use model::{Caller, Failure, ResourceVersion};
use tokio::time::Instant;

use crate::Registry;
use crate::cache::Snapshot;
use crate::channel::Subscription;
use crate::convert;
use crate::resource::Resource;
use crate::select::Filter;

/// How often a quiet watch that asked for bookmarks gets one.
const BOOKMARK: Duration = Duration::from_secs(60);

/// The most events taken out of the channel at once: bounds what a slow reader holds.
const BATCH: usize = 256;

pub(crate) async fn watch(
    registry: &Registry,
    caller: &Caller,
    of: &Collection,
    options: &WatchOptions,
) -> Result<WatchStream, Failure> {
    let resource = registry.find(&of.gvr)?;
    let filter = Filter::new(&resource, of.namespace.as_deref(), &options.labels, &options.fields)?;
    let target = Target::new(
        of.gvr.clone(),
        of.namespace.as_deref().unwrap_or_default(),
        filter.name().unwrap_or_default(),
    );
    registry.authorize(caller, "watch", &target).await?;
    if options.send_initial_events && !options.bookmarks {
        let why = "sendInitialEvents is forbidden for watch unless allowWatchBookmarks is true";
        return Err(Failure::BadRequest(why.into()));
    }
    let cache = registry.cache(&resource).await?;
    // Version 0 and none both mean: the state first. With `sendInitialEvents` a version is how fresh that must be.
    let from = options
        .from
        .filter(|v| *v != ResourceVersion::ANY && !options.send_initial_events);
    match options.from {
        Some(ResourceVersion::ANY) => {}
        Some(version) if options.send_initial_events => cache.reach(version).await?,
        Some(_) => {}
        None => cache.catch_up().await?,
    }
    let opened = cache.subscribe(filter.clone(), from)?;
    let now = Instant::now();
    let watcher = Watcher {
        registry: registry.clone(),
        resource,
        state: opened.snapshot.map(|objects| State { objects, after: None }),
        filter,
        ready: opened.first.into_iter().map(|t| t.event()).collect(),
        announce: options.send_initial_events.then_some(opened.through),
        subscription: opened.subscription,
        told: opened.through,
        bookmarks: options.bookmarks,
        bookmark: now + BOOKMARK,
        end: options.timeout.map(|t| now + t),
        over: false,
    };
    Ok(stream::unfold(watcher, Watcher::step).boxed())
}

struct Watcher {
    registry: Registry,
    resource: Arc<Resource>,
    filter: Filter,
    /// The state that is still to be sent.
    state: Option<State>,
    ready: VecDeque<WatchEvent>,
    /// The version whose state is complete once `state` is through, where the watcher wants to be told.
    announce: Option<ResourceVersion>,
    subscription: Subscription,
    /// The newest version the watcher has heard of.
    told: ResourceVersion,
    bookmarks: bool,
    bookmark: Instant,
    end: Option<Instant>,
    over: bool,
}

/// The initial state, read piece by piece so that a big one is never copied as a whole.
struct State {
    objects: Snapshot,
    after: Option<crate::cache::Place>,
}

impl Watcher {
    async fn step(mut self) -> Option<(Result<WatchEvent, Failure>, Self)> {
        if self.over {
            return None;
        }
        let next = self.next().await;
        match next {
            Ok(Some(event)) => Some((Ok(event), self)),
            Ok(None) => None,
            Err(failure) => {
                self.over = true;
                Some((Err(failure), self))
            }
        }
    }

    async fn next(&mut self) -> Result<Option<WatchEvent>, Failure> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return self.serve(event).await.map(Some);
            }
            if self.state.is_some() {
                self.read_state();
                continue;
            }
            if let Some(version) = self.announce.take() {
                self.told = self.told.max(version);
                return Ok(Some(WatchEvent::Bookmark {
                    version,
                    initial_events_end: true,
                }));
            }
            // Read before taking: what is taken then is complete through it.
            let through = self.subscription.through();
            let events = self.subscription.take(BATCH)?;
            if let Some(last) = events.last() {
                self.told = self.told.max(last.version);
                self.ready.extend(events.into_iter().map(|t| t.event()));
                continue;
            }
            let now = Instant::now();
            if self.end.is_some_and(|end| now >= end) {
                self.over = true;
                return Ok(self.say(through));
            }
            if self.bookmarks && now >= self.bookmark {
                self.bookmark = now + BOOKMARK;
                if let Some(bookmark) = self.say(through) {
                    return Ok(Some(bookmark));
                }
            }
            self.wait().await;
        }
    }

    /// A bookmark, if it would say anything new.
    fn say(&mut self, through: ResourceVersion) -> Option<WatchEvent> {
        (self.bookmarks && through > self.told).then(|| {
            self.told = through;
            WatchEvent::Bookmark {
                version: through,
                initial_events_end: false,
            }
        })
    }

    /// Until there may be something to do.
    async fn wait(&mut self) {
        let deadline = match (self.end, self.bookmarks) {
            (Some(end), true) => Some(end.min(self.bookmark)),
            (Some(end), false) => Some(end),
            (None, true) => Some(self.bookmark),
            (None, false) => None,
        };
        let Some(deadline) = deadline else {
            return self.subscription.changed().await;
        };
        if tokio::time::timeout_at(deadline, self.subscription.changed())
            .await
            .is_ok()
        {
            return;
        }
        // A quiet kind's cache stands still while the store goes on; a bookmark is worth asking how far it is.
        if let Err(error) = self.subscription.cache().catch_up().await {
            tracing::debug!(%error, "a bookmark could not be brought up to date");
        }
    }

    fn read_state(&mut self) {
        let Some(state) = &mut self.state else { return };
        let prefix = self
            .filter
            .namespace
            .as_ref()
            .map(|n| format!("{n}/"))
            .unwrap_or_default();
        let (mut seen, mut last) = (0, None);
        let from = match state.after.take() {
            Some(place) => (std::ops::Bound::Excluded(place), std::ops::Bound::Unbounded),
            None => (
                std::ops::Bound::Included(prefix.as_str().into()),
                std::ops::Bound::Unbounded,
            ),
        };
        let picker = &self.subscription.cache().picker;
        for (place, entry) in state
            .objects
            .range(from)
            .take_while(|(p, _)| p.starts_with(prefix.as_str()))
        {
            seen += 1;
            if self.filter.matches(entry, picker) {
                self.ready.push_back(WatchEvent::Added(entry.object.clone()));
            }
            if seen == 4 * BATCH {
                last = Some(place.clone());
                break;
            }
        }
        match last {
            Some(place) => state.after = Some(place),
            None => self.state = None,
        }
    }

    async fn serve(&self, event: WatchEvent) -> Result<WatchEvent, Failure> {
        let serve = |object| convert::serve(&self.registry, &self.resource, object);
        Ok(match event {
            WatchEvent::Added(object) => WatchEvent::Added(serve(object).await?),
            WatchEvent::Modified(object) => WatchEvent::Modified(serve(object).await?),
            WatchEvent::Deleted(object) => WatchEvent::Deleted(serve(object).await?),
            bookmark @ WatchEvent::Bookmark { .. } => bookmark,
        })
    }
}
