//! One collection's objects as they come and go: a list, a watch from it, and a list again when the watch cannot go on.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use model::{Caller, Failure, Object, ResourceVersion};
use tokio::time::Instant;

use crate::{Cluster, Collection, ListOptions, WatchEvent, WatchOptions, WatchStream};

/// Objects in one answer to a list, so that a far API server is not asked for everything at once.
const PAGE: u64 = 1000;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What is told about a collection, in order.
#[derive(Debug)]
pub enum News {
    /// All there is at `version`. What was told before and is not among it is gone.
    Restarted {
        version: ResourceVersion,
        objects: Vec<Arc<Object>>,
    },
    /// Came, or is different.
    Changed(Arc<Object>),
    /// Its last state, at the version of its end.
    Removed(Arc<Object>),
    /// Nothing else happened up to here.
    UpTo(ResourceVersion),
    /// The collection cannot be read now; asking for the next news tries again. What was told holds until then.
    Failed(Failure),
}

/// Follows what `fields` (a field selector; empty: everything) chooses of a collection. The first news that is not
/// `Failed` is `Restarted`. The stream has no end; dropping it stops everything.
///
/// A watch that ends is begun again where it stood, also when the cluster could not be reached for a while. After any
/// other failure, a compacted version first of all, the collection is listed. Attempts that come to nothing are ever
/// further apart, up to 10 s and half of that by chance, so that those who lost one server do not all come back at once.
pub fn follow(cluster: Arc<dyn Cluster>, caller: Caller, of: Collection, fields: &str) -> BoxStream<'static, News> {
    let follower = Follower {
        cluster,
        caller,
        of,
        fields: fields.to_owned(),
        known: None,
        watch: None,
        pause: Duration::ZERO,
        not_before: None,
        warned: false,
    };
    stream::unfold(follower, |mut follower| async move {
        Some((follower.next().await, follower))
    })
    .boxed()
}

struct Follower {
    cluster: Arc<dyn Cluster>,
    caller: Caller,
    of: Collection,
    fields: String,
    /// Everything up to here was told; `None`: list first.
    known: Option<ResourceVersion>,
    watch: Option<(WatchStream, Instant)>,
    /// Between the last attempt that came to nothing and the next; zero after one that did not.
    pause: Duration,
    not_before: Option<Instant>,
    /// The log knows that it fails.
    warned: bool,
}

impl Follower {
    async fn next(&mut self) -> News {
        loop {
            match self.go_on().await {
                Ok(Some(news)) => {
                    self.warned = false;
                    return news;
                }
                Ok(None) => {}
                Err(failure) => {
                    self.ended();
                    if !matches!(
                        failure,
                        Failure::Unavailable { .. } | Failure::Timeout(_) | Failure::TooManyRequests { .. }
                    ) {
                        self.known = None;
                    }
                    // Ordinary: the version it stood at was compacted away.
                    if matches!(failure, Failure::Expired(_)) {
                        continue;
                    }
                    if !std::mem::replace(&mut self.warned, true) {
                        tracing::warn!(resource = %self.of.gvr, %failure, "cannot be followed; trying again");
                    }
                    return News::Failed(failure);
                }
            }
        }
    }

    /// One step. `None`: it leads on, and there is nothing to tell.
    async fn go_on(&mut self) -> Result<Option<News>, Failure> {
        if let Some(then) = self.not_before.take() {
            tokio::time::sleep_until(then).await;
        }
        let Some(known) = self.known else {
            return self.list().await.map(Some);
        };
        let Some((events, _)) = &mut self.watch else {
            let options = WatchOptions {
                fields: self.fields.clone(),
                from: Some(known),
                bookmarks: true,
                ..WatchOptions::default()
            };
            let events = self.cluster.watch(&self.caller, &self.of, &options).await?;
            self.watch = Some((events, Instant::now()));
            return Ok(None);
        };
        let Some(event) = events.next().await else {
            // Its time was up. It goes on where it stood.
            self.ended();
            return Ok(None);
        };
        let (version, news) = match event? {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => (object.version, News::Changed(object)),
            WatchEvent::Deleted(object) => (object.version, News::Removed(object)),
            WatchEvent::Bookmark { version, .. } => (version, News::UpTo(version)),
        };
        self.known = Some(known.max(version));
        self.pause = Duration::ZERO;
        Ok(Some(news))
    }

    async fn list(&mut self) -> Result<News, Failure> {
        let mut options = ListOptions {
            fields: self.fields.clone(),
            limit: PAGE,
            ..ListOptions::default()
        };
        let mut objects = Vec::new();
        loop {
            let page = self.cluster.list(&self.caller, &self.of, &options).await?;
            objects.extend(page.items);
            if page.continue_token.is_empty() {
                // All pages are of the first one's version.
                let version = page.version;
                self.known = Some(version);
                return Ok(News::Restarted { version, objects });
            }
            options.continue_token = page.continue_token;
        }
    }

    /// The watch is over, or it or the list could not be begun: the next attempt waits a little longer than this one did.
    fn ended(&mut self) {
        let watched = self.watch.take().map(|(_, since)| since.elapsed());
        let before = match watched {
            Some(time) if time >= LONGEST_PAUSE => Duration::ZERO,
            _ => self.pause,
        };
        self.pause = (before * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        self.not_before = Some(Instant::now() + self.pause.mul_f64(0.5 + 0.5 * fastrand::f64()));
    }
}

#[cfg(test)]
mod tests {
    use model::{Gvr, ObjectKey};
    use serde_json::json;

    use super::*;
    use crate::fake::Fake;

    fn pods() -> Collection {
        Collection::all(Gvr::new("", "v1", "pods"))
    }

    fn put(fake: &Fake, name: &str, node: &str) -> Arc<Object> {
        fake.put(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"nodeName": node}}))
    }

    fn remove(fake: &Fake, name: &str) {
        assert!(fake.remove(&ObjectKey::new(pods().gvr.group_resource(), "default", name)));
    }

    struct Reader(BoxStream<'static, News>);

    impl Reader {
        fn of(fake: &Fake, fields: &str) -> Self {
            Self(follow(
                fake.cluster(),
                Caller::component("system:test", &[]),
                pods(),
                fields,
            ))
        }

        /// The next news in short, with names in place of objects and without bookmarks.
        async fn next(&mut self) -> String {
            loop {
                return match self.0.next().await.expect("it has no end") {
                    News::Restarted { objects, .. } => {
                        let names: Vec<&str> = objects.iter().map(|object| object.key.name.as_str()).collect();
                        format!("restarted {}", names.join(" "))
                    }
                    News::Changed(object) => format!("changed {}", object.key.name),
                    News::Removed(object) => format!("removed {}", object.key.name),
                    News::UpTo(_) => continue,
                    News::Failed(failure) => format!("failed {failure}"),
                };
            }
        }
    }

    #[tokio::test]
    async fn what_is_there_then_what_happens() {
        let fake = Fake::new();
        put(&fake, "a", "n1");
        let mut reader = Reader::of(&fake, "");
        assert_eq!(reader.next().await, "restarted a");
        put(&fake, "b", "n1");
        remove(&fake, "a");
        assert_eq!(reader.next().await, "changed b");
        assert_eq!(reader.next().await, "removed a");
    }

    #[tokio::test]
    async fn a_list_in_pages_is_one_news() {
        let fake = Fake::new();
        let count = usize::try_from(PAGE).unwrap() * 2 + 1;
        for n in 0..count {
            put(&fake, &format!("p{n}"), "n1");
        }
        let mut reader = Reader::of(&fake, "");
        assert_eq!(reader.next().await.split(' ').count(), 1 + count);
    }

    #[tokio::test]
    async fn what_leaves_the_selection_is_removed() {
        let fake = Fake::new();
        put(&fake, "a", "n1");
        put(&fake, "b", "n2");
        let mut reader = Reader::of(&fake, "spec.nodeName=n1");
        assert_eq!(reader.next().await, "restarted a");
        put(&fake, "a", "n2");
        assert_eq!(reader.next().await, "removed a");
    }

    #[tokio::test]
    async fn a_watch_that_ends_goes_on_where_it_stood() {
        let fake = Fake::new();
        let mut reader = Reader::of(&fake, "");
        assert_eq!(reader.next().await, "restarted ");
        put(&fake, "a", "n1");
        assert_eq!(reader.next().await, "changed a");
        fake.end_watches(None);
        put(&fake, "b", "n1");
        assert_eq!(reader.next().await, "changed b", "and not a list");
    }

    #[tokio::test]
    async fn an_unreachable_cluster_costs_no_list() {
        let fake = Fake::new();
        let mut reader = Reader::of(&fake, "");
        assert_eq!(reader.next().await, "restarted ");
        put(&fake, "a", "n1");
        assert_eq!(reader.next().await, "changed a");
        fake.end_watches(Some(|| Failure::Timeout("the line is dead".into())));
        put(&fake, "b", "n1");
        assert_eq!(reader.next().await, "failed the line is dead");
        assert_eq!(reader.next().await, "changed b");
    }

    #[tokio::test]
    async fn a_compacted_version_is_answered_with_a_list() {
        let fake = Fake::new();
        put(&fake, "a", "n1");
        put(&fake, "b", "n1");
        let mut reader = Reader::of(&fake, "");
        assert_eq!(reader.next().await, "restarted a b");
        remove(&fake, "a");
        put(&fake, "c", "n1");
        fake.break_watches();
        assert_eq!(reader.next().await, "restarted b c");
        put(&fake, "d", "n1");
        assert_eq!(reader.next().await, "changed d");
    }

    #[tokio::test]
    async fn a_refused_list_is_told_and_tried_again() {
        let fake = Fake::new();
        put(&fake, "a", "n1");
        let refusals = [
            Failure::Unauthorized("not you".into()),
            Failure::Internal("broken".into()),
        ];
        fake.refuse_lists(refusals);
        let mut reader = Reader::of(&fake, "");
        assert_eq!(reader.next().await, "failed not you");
        let begun = Instant::now();
        assert_eq!(reader.next().await, "failed Internal error occurred: broken");
        assert!(begun.elapsed() >= FIRST_PAUSE / 2, "it waits before it tries again");
        assert_eq!(reader.next().await, "restarted a");
        // After a watch that is refused for good, as after a change of roles, the state is doubtful, too.
        put(&fake, "a", "n2");
        assert_eq!(reader.next().await, "changed a");
        fake.end_watches(Some(|| Failure::Unauthorized("not you".into())));
        assert_eq!(reader.next().await, "failed not you");
        assert_eq!(reader.next().await, "restarted a");
    }
}
