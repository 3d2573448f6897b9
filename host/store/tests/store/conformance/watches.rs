//! Watches: everything once, from any revision, of one prefix.

use std::sync::Arc;

use bytes::Bytes;
use store::{Event, Previous, Revision, Txn};

use super::{Stage, done, rev, take};

pub(super) async fn a_watch_tells_everything_once(stage: Stage) {
    let start = stage.a.revision().await.unwrap();
    let mut watch = stage.b.watch(stage.prefix(), start).await.unwrap();
    let key = stage.key("k");
    let made = done(&*stage.a, Txn::put(key.clone(), "1")).await;
    let changed = done(&*stage.a, Txn::put(key.clone(), "2")).await;
    let gone = done(&*stage.a, Txn::delete(key.clone(), changed)).await;
    let again = done(&*stage.a, Txn::put(key.clone(), "3")).await;
    let previous = |value: &'static str, modified| {
        Some(Previous {
            value: value.into(),
            modified,
        })
    };
    let event = |revision, value: Option<&'static str>, created, previous| {
        Arc::new(Event {
            key: key.clone(),
            revision,
            value: value.map(Bytes::from),
            created,
            previous,
        })
    };
    let expected = [
        event(made, Some("1"), made, None),
        event(changed, Some("2"), made, previous("1", made)),
        event(gone, None, made, previous("2", changed)),
        event(again, Some("3"), again, None),
    ];
    assert_eq!(take(&mut watch, 4).await, expected);
}

pub(super) async fn a_watch_starts_in_the_past(stage: Stage) {
    let mut revisions = Vec::new();
    for n in 0..700 {
        revisions.push(done(&*stage.a, Txn::put(stage.key(&format!("{}", n % 7)), format!("{n}"))).await);
    }
    for skip in [0, 1, 350, 699] {
        let mut watch = stage.b.watch(stage.prefix(), revisions[skip]).await.unwrap();
        let live = done(&*stage.a, Txn::put(stage.key("live"), "")).await;
        revisions.push(live);
        let events = take(&mut watch, revisions.len() - skip - 1).await;
        let seen: Vec<Revision> = events.iter().map(|event| event.revision).collect();
        assert_eq!(seen, revisions[skip + 1..], "from {skip}");
    }
}

pub(super) async fn a_watch_may_start_in_the_future(stage: Stage) {
    let now = done(&*stage.a, Txn::put(stage.key("k"), "0")).await;
    let mut watch = stage.a.watch(stage.prefix(), rev(now.0 + 3)).await.unwrap();
    let mut last = now;
    while last.0 < now.0 + 5 {
        last = done(&*stage.a, Txn::put(stage.key("k"), "n")).await;
    }
    let events = take(&mut watch, (last.0 - now.0 - 3) as usize).await;
    assert_eq!(events[0].revision.0, now.0 + 4);
}

pub(super) async fn a_watch_sees_its_prefix_only(stage: Stage) {
    let start = stage.a.revision().await.unwrap();
    let (ours, theirs) = (stage.key("ours/"), stage.key("theirs/"));
    let mut watch = stage.a.watch(ours.clone(), start).await.unwrap();
    let mut twin = stage.a.watch(ours.clone(), start).await.unwrap();
    let mut other = stage.a.watch(theirs.clone(), start).await.unwrap();
    let mut both = stage.a.watch(stage.prefix(), start).await.unwrap();
    for n in 0..10 {
        for under in [&ours, &theirs] {
            done(
                &*stage.a,
                Txn::put([&under[..], format!("{n}").as_bytes()].concat(), ""),
            )
            .await;
        }
    }
    let events = take(&mut watch, 10).await;
    assert!(events.iter().all(|event| event.key.starts_with(&ours)));
    assert_eq!(take(&mut twin, 10).await, events);
    assert!(
        take(&mut other, 10)
            .await
            .iter()
            .all(|event| event.key.starts_with(&theirs))
    );
    assert_eq!(take(&mut both, 20).await.len(), 20);
    // One watch's end is not the others'.
    drop(twin);
    done(&*stage.a, Txn::put([&ours[..], b"more"].concat(), "")).await;
    assert_eq!(take(&mut watch, 1).await.len(), 1);
}

pub(super) async fn progress_comes_when_asked(stage: Stage) {
    let start = stage.a.revision().await.unwrap();
    let mut watch = stage.a.watch(stage.key("quiet/"), start).await.unwrap();
    for n in 0..3 {
        let now = done(&*stage.b, Txn::put(stage.key("loud"), format!("{n}"))).await;
        stage.a.request_progress().await.unwrap();
        let batch = watch.next().await.unwrap();
        assert!(batch.events.is_empty() && batch.through >= now, "{batch:?} at {now}");
    }
    // Never ahead of an event: what is told next lies behind it.
    let event = done(&*stage.b, Txn::put(stage.key("quiet/k"), "")).await;
    stage.a.request_progress().await.unwrap();
    let mut batch = watch.next().await.unwrap();
    while batch.events.is_empty() {
        assert!(batch.through < event);
        batch = watch.next().await.unwrap();
    }
    assert_eq!(batch.events[0].revision, event);
}
