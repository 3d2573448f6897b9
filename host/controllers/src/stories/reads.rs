//! What a controller read decides when it runs, and what it is shown.

use super::*;

#[tokio::test]
async fn it_converges_up_down_and_away() {
    let (fake, stage) = web(3).await;
    fake.put(set("web", 1));
    has_pods(&fake, 1).await;
    // A pod that somebody else takes away comes back.
    fake.remove(&fake.objects("pods")[0].key.clone());
    until(&fake, "one pod again", |f| f.objects("pods").len() == 1).await;
    fake.remove(&key(SETS, "web"));
    let gone = async {
        while stage.controller.figures().keys > 0 {
            tokio::task::yield_now().await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(20), gone).await;
    assert!(in_time.is_ok(), "the key stays: {:?}", stage.log.whys());
}

#[tokio::test]
async fn a_change_it_did_not_read_does_not_run_it() {
    let fake = Fake::new();
    for name in ["web", "marker"] {
        fake.put(set(name, 1));
    }
    let stage = stage(&fake, Native::new("apps/v1/ReplicaSet", replicas("a")));
    until(&fake, "both settled", |f| {
        status(f, "web") == 1 && status(f, "marker") == 1
    })
    .await;
    settle(&stage).await;
    let pod = fake
        .objects("pods")
        .into_iter()
        .find(|pod| pod.key.name.starts_with("web"))
        .unwrap();
    for n in 0..5 {
        // Neither the pod's annotations nor a stranger are in what it read; of its own set it read other fields.
        let mut other = pod.value();
        other["metadata"]["annotations"] = json!({"n": n.to_string()});
        fake.put(other);
        fake.put(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("stranger-{n}")}}));
        let mut own = fake.object(&key(SETS, "web")).unwrap().value();
        own["metadata"]["labels"] = json!({"n": n.to_string()});
        fake.put(own);
    }
    let before = stage.log.of("web").len();
    // The marker's change comes behind those on both watches, and its run after theirs, if there were any.
    let mut poked = fake.object(&key(SETS, "marker")).unwrap().value();
    poked["spec"]["replicas"] = json!(2);
    fake.put(poked);
    until(&fake, "the marker ran", |f| status(f, "marker") == 2).await;
    settle(&stage).await;
    assert_eq!(stage.log.of("web").len(), before, "{:?}", stage.log.whys());
}

#[tokio::test]
async fn every_change_it_read_is_followed_by_a_run_that_sees_it() {
    let fake = Fake::new();
    fake.put(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"n": "0"}}));
    let seen = Arc::new(Mutex::new(Vec::<i64>::new()));
    let told = seen.clone();
    let native = Native::new("v1/ConfigMap", move |request, view| {
        let answer = view.get(&request.key.kind, "default", "c", ".data.n")?;
        told.lock().push(text(&answer, 0, 0).parse().unwrap_or(-1));
        Ok(Outcome::default())
    });
    let stage = stage(&fake, native);
    for n in 1..=50 {
        fake.put(
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"n": n.to_string()}}),
        );
        if n % 7 == 0 {
            stage
                .log
                .until("a run sees it", |_| seen.lock().last() == Some(&n))
                .await;
        }
        if n % 20 == 0 {
            fake.break_watches();
        }
    }
    stage
        .log
        .until("a run sees the last", |_| seen.lock().last() == Some(&50))
        .await;
    assert!(
        seen.lock().is_sorted(),
        "no run saw an older view than the one before: {:?}",
        seen.lock()
    );
}

#[tokio::test]
async fn the_same_recorded_reads_give_the_same_bytes() {
    let (_fake, stage) = web(3).await;
    settle(&stage).await;
    let runs = stage.log.of("web");
    assert!(runs.len() >= 2);
    for ran in runs {
        let recording = Recording::from_bytes(ran.recording.to_bytes()).unwrap();
        assert_eq!(recording, ran.recording);
        let request: Request = serde_json::from_slice(&recording.request).unwrap();
        let again = replicas("a")(&request, &RecordedView::replay(recording.clone())).unwrap();
        let bytes = |outcome: &Outcome| serde_json::to_vec(outcome).unwrap();
        assert_eq!(bytes(&again), bytes(ran.answer.as_ref().unwrap()));
        // One that asks something else is told so, not answered with something near.
        let strays = RecordedView::replay(recording).get(&pods(), "default", "other", ".metadata.name");
        assert!(strays.unwrap_err().message.contains("the replay left the recording"));
    }
}

#[tokio::test]
async fn the_memo_comes_back_and_time_wakes() {
    let fake = Fake::new();
    fake.put(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}));
    let native = Native::new("v1/ConfigMap", |request, view| {
        let mut memo = request.memo.to_vec();
        memo.push(b'x');
        // Ten times, 5 ms apart, and never for another reason.
        if memo.len() < 10 {
            view.reached(request.now + 5);
        }
        Ok(Outcome {
            memo: memo.into(),
            ..Outcome::default()
        })
    });
    let stage = stage(&fake, native);
    stage.log.until("ten runs", |runs| runs.len() == 10).await;
    let runs = stage.log.of("c");
    assert_eq!(
        runs.last().unwrap().answer.as_ref().unwrap().memo,
        Bytes::from_static(b"xxxxxxxxxx")
    );
    assert!(
        runs[1..].iter().all(|ran| ran.why.starts_with("the time")),
        "{:?}",
        stage.log.whys()
    );
}

#[tokio::test]
async fn changes_bring_one_row_for_one_pod() {
    let fake = Fake::new();
    for n in 0..200 {
        fake.put(
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("p{n}"), "labels": {"app": "web"}}}),
        );
    }
    fake.put(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}}));
    let rows = Arc::new(Mutex::new(Vec::new()));
    let told = rows.clone();
    let native = Native::new("v1/Service", move |request, view| {
        let cursor = request.memo.as_ref().try_into().map_or(0, u64::from_le_bytes);
        let which = Selection::namespace("default").labelled("app=web");
        let delta = view.changes(&pods(), &which, ".status.phase", cursor)?;
        let count = |packed: &Bytes| Columns::parse(packed).unwrap().rows();
        told.lock()
            .push((delta.complete, count(&delta.rows), count(&delta.gone)));
        Ok(Outcome {
            memo: delta.cursor.to_le_bytes().to_vec().into(),
            ..Outcome::default()
        })
    });
    let stage = stage(&fake, native);
    stage
        .log
        .until("all rows once", |_| rows.lock().last() == Some(&(true, 200, 0)))
        .await;
    let pod = |status: &str| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p7", "labels": {"app": "web"}}, "status": {"phase": status}});
    fake.put(pod("Running"));
    stage
        .log
        .until("one row", |_| rows.lock().last() == Some(&(false, 1, 0)))
        .await;
    fake.remove(&key(("", "pods"), "p8"));
    stage
        .log
        .until("one gone", |_| rows.lock().last() == Some(&(false, 0, 1)))
        .await;
}

#[tokio::test]
async fn fields_as_read_minds_those_fields_only() {
    let fake = Fake::new();
    fake.put(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"mind": "1", "other": "1"}}));
    let (at_write, hooked) = (Arc::new(AtomicUsize::new(0)), fake.clone());
    let count = at_write.clone();
    let native = Native::new("v1/ConfigMap", move |request, view| {
        let own = view.get(&request.key.kind, "default", "c", ".metadata.uid .data.mind .data.done")?;
        if text(&own, 0, 2) == text(&own, 0, 1) {
            return Ok(Outcome::default());
        }
        // Between the look and the write somebody changes the field it minds (first), or another (then).
        let n = count.fetch_add(1, Ordering::Relaxed);
        let data = if n == 0 {
            json!({"mind": "2", "other": "1"})
        } else {
            json!({"mind": "2", "other": n.to_string()})
        };
        hooked.put(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": data}));
        let when = Precondition::FieldsAsRead {
            uid: text(&own, 0, 0),
            fields: ".data.mind".into(),
        };
        let body = json!({"data": {"done": text(&own, 0, 1)}}).to_string().into();
        let format = crate::PatchFormat::Merge;
        let key = request.key.clone();
        Ok(Outcome {
            intents: vec![Intent::Patch {
                key,
                when,
                format,
                body,
                subresource: String::new(),
            }],
            memo: Bytes::new(),
        })
    });
    let stage = stage(&fake, native);
    let done = |f: &Fake| f.object(&key(("", "configmaps"), "c")).unwrap().value()["data"]["done"].clone();
    until(&fake, "done with the new value", |f| done(f) == "2").await;
    let refusals: BTreeMap<_, _> = stage
        .log
        .of("c")
        .iter()
        .filter_map(|ran| ran.refused.clone())
        .map(|r| (r.times, r.why.reason))
        .collect();
    assert_eq!(refusals, [(1, "conflict".to_owned())].into());
}
