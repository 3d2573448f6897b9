//! Lists: their order, pages, counts, and the past.

use std::collections::BTreeSet;

use store::{MAX_KEY, MAX_VALUE, Range, Revision, StoreError, Txn};

use super::{Stage, done, names, rev, take, value};

pub(super) async fn keys_are_bytes_in_order(stage: Stage) {
    let tails: [&[u8]; 6] = [b"a", b"a\0", b"a\0\xff", b"a/", b"b\xfe", b"\xff\xff"];
    for tail in tails.iter().rev() {
        let key = [stage.prefix.as_bytes(), tail].concat();
        done(&*stage.a, Txn::put(key, tail.to_vec())).await;
    }
    let page = stage.a.range(Range::prefix(stage.prefix())).await.unwrap();
    let found: Vec<&[u8]> = page.entries.iter().map(|entry| &entry.value[..]).collect();
    assert_eq!(found, tails);
    let last = [stage.prefix.as_bytes(), b"\xff"].concat();
    assert_eq!(
        stage.a.count(&last, None).await.unwrap().count,
        1,
        "a prefix may end in the last byte"
    );
}

pub(super) async fn a_prefix_is_no_path(stage: Stage) {
    for name in ["pod", "pod/a", "pod/b", "pods/a", "poe"] {
        done(&*stage.a, Txn::put(stage.key(name), "")).await;
    }
    assert_eq!(
        names(&stage, Range::prefix(stage.key("pod/"))).await,
        ["pod/a", "pod/b"]
    );
    assert_eq!(
        names(&stage, Range::prefix(stage.key("pod"))).await,
        ["pod", "pod/a", "pod/b", "pods/a"]
    );
    let behind = Range {
        start: stage.key("q"),
        ..Range::prefix(stage.key("pod"))
    };
    assert_eq!(names(&stage, behind).await, [""; 0]);
}

pub(super) async fn pages_at_a_revision_are_one_list(stage: Stage) {
    for n in 0..25 {
        done(&*stage.a, Txn::put(stage.key(&format!("{n:02}")), format!("{n}"))).await;
    }
    let first = stage.a.range(Range::prefix(stage.prefix()).limit(10)).await.unwrap();
    assert_eq!((first.entries.len(), first.remaining), (10, 15));
    // Whatever happens now is not in the list.
    done(&*stage.b, Txn::put(stage.key("15"), "changed")).await;
    done(&*stage.b, Txn::put(stage.key("12a"), "new")).await;
    let read = stage.b.get(&stage.key("20"), None).await.unwrap();
    done(&*stage.b, Txn::delete(stage.key("20"), read.entry.unwrap().modified)).await;
    let mut all = first.entries.clone();
    loop {
        let last = all.last().unwrap().key.clone();
        let next = Range::prefix(stage.prefix()).limit(10).at(first.revision).after(&last);
        let page = stage.b.range(next).await.unwrap();
        assert_eq!(page.revision, first.revision);
        all.extend(page.entries);
        assert_eq!(page.remaining as usize, 25 - all.len());
        if page.remaining == 0 {
            break;
        }
    }
    let values: Vec<String> = all
        .iter()
        .map(|entry| String::from_utf8_lossy(&entry.value).into_owned())
        .collect();
    assert_eq!(values, (0..25).map(|n| n.to_string()).collect::<Vec<_>>());
}

pub(super) async fn a_long_list_comes_whole(stage: Stage) {
    let writes = (0..2_500).map(|n| {
        let stage = stage.clone();
        tokio::spawn(async move { done(&*stage.a, Txn::create(stage.key(&format!("{n:05}")), vec![7; 50])).await })
    });
    let revisions: BTreeSet<Revision> = futures::future::join_all(writes)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    assert_eq!(revisions.len(), 2_500, "every change has a revision of its own");
    let page = stage.a.range(Range::prefix(stage.prefix())).await.unwrap();
    assert_eq!((page.entries.len(), page.remaining), (2_500, 0));
    assert!(page.entries.is_sorted_by(|a, b| a.key < b.key));
    let most = stage.a.range(Range::prefix(stage.prefix()).limit(2_100)).await.unwrap();
    assert_eq!((most.entries.len(), most.remaining), (2_100, 400));
    assert_eq!(most.entries[..], page.entries[..2_100]);
}

pub(super) async fn counts_at_a_revision(stage: Stage) {
    let mut revisions = Vec::new();
    for n in 0..5 {
        revisions.push(done(&*stage.a, Txn::put(stage.key(&format!("{n}")), "")).await);
    }
    done(&*stage.a, Txn::delete(stage.key("0"), revisions[0])).await;
    let counted = stage.a.count(&stage.prefix(), None).await.unwrap();
    assert_eq!(counted.count, 4);
    assert_eq!(
        stage.a.count(&stage.prefix(), Some(revisions[2])).await.unwrap().count,
        3
    );
    assert_eq!(
        stage.a.count(&stage.prefix(), Some(revisions[4])).await.unwrap().count,
        5
    );
    assert_eq!(
        stage
            .a
            .count(&stage.prefix(), Some(counted.revision))
            .await
            .unwrap()
            .count,
        4
    );
}

pub(super) async fn the_past_can_be_read(stage: Stage) {
    let key = stage.key("k");
    let one = done(&*stage.a, Txn::put(key.clone(), "1")).await;
    let two = done(&*stage.a, Txn::put(key.clone(), "2")).await;
    let gone = done(&*stage.a, Txn::delete(key.clone(), two)).await;
    let three = done(&*stage.a, Txn::put(key.clone(), "3")).await;
    for (at, expected) in [(one, Some("1")), (two, Some("2")), (gone, None), (three, Some("3"))] {
        let read = stage.b.get(&key, Some(at)).await.unwrap();
        assert_eq!(
            read.entry.as_ref().map(|entry| &entry.value[..]),
            expected.map(str::as_bytes)
        );
        assert_eq!(read.revision, at);
        let listed = stage.b.range(Range::prefix(stage.prefix()).at(at)).await.unwrap();
        assert_eq!(listed.entries.first(), read.entry.as_ref());
    }
    let before = stage.b.get(&key, Some(rev(one.0 - 1))).await.unwrap();
    assert_eq!(before.entry, None);
}

pub(super) async fn the_future_cannot_be_read(stage: Stage) {
    let current = done(&*stage.a, Txn::put(stage.key("k"), "")).await;
    let ahead = rev(current.0 + 1_000_000);
    let answers = [
        stage.a.get(&stage.key("k"), Some(ahead)).await.map(drop),
        stage.a.range(Range::prefix(stage.prefix()).at(ahead)).await.map(drop),
        stage.a.count(&stage.prefix(), Some(ahead)).await.map(drop),
        stage.a.compact(ahead).await,
    ];
    for answer in answers {
        match answer {
            Err(StoreError::Future { asked, current: now }) => assert!(asked == ahead && now >= current),
            other => panic!("{other:?}"),
        }
    }
}

pub(super) async fn what_is_too_large_is_refused(stage: Stage) {
    let before = stage.a.revision().await.unwrap();
    let long = stage.key(&"k".repeat(MAX_KEY));
    let refused = [
        Txn::put(stage.key("k"), vec![0; MAX_VALUE + 1]),
        Txn::put(long.clone(), ""),
        Txn::put("", ""),
        Txn::put(stage.key("k"), "").when(long, rev(0)),
    ];
    for txn in refused {
        assert!(matches!(stage.a.txn(txn).await, Err(StoreError::Size { .. })));
    }
    assert_eq!(stage.a.revision().await.unwrap(), before);
    let largest: Vec<u8> = (0..MAX_VALUE).map(|n| (n % 251) as u8).collect();
    done(&*stage.a, Txn::put(stage.key("k"), largest.clone())).await;
    assert_eq!(value(&*stage.a, &stage.key("k")).await.unwrap(), largest);
    let mut watch = stage.a.watch(stage.prefix(), before).await.unwrap();
    assert_eq!(take(&mut watch, 1).await[0].value.as_ref().unwrap().len(), MAX_VALUE);
}
