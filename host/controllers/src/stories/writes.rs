//! What becomes of intents: refused, interrupted, doubled by nobody, and shown before the key runs again.

use super::*;

#[tokio::test]
async fn after_its_own_write_it_never_acts_on_an_older_view() {
    let (fake, stage) = web(2).await;
    settle(&stage).await;
    fake.hold_watches("pods");
    fake.put(set("web", 4));
    until(&fake, "two more were made", |f| f.objects("pods").len() == 4).await;
    let runs =
        stage.log.of("web").len() + usize::from(stage.log.of("web").len() as u64 != stage.controller.figures().runs);
    // The set changes again and again; the pods it made are not in the view.
    for n in 5..=8 {
        fake.put(set("web", n));
    }
    for _ in 0..2000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(fake.objects("pods").len(), 4, "it acted on a view without its own pods");
    assert!(
        stage.log.of("web").len() <= runs,
        "it ran on a view without its own pods"
    );
    fake.release_watches("pods");
    has_pods(&fake, 8).await;
    settle(&stage).await;
    assert_eq!(fake.objects("pods").len(), 8, "never one too many");
    assert!(
        created(&fake) == 8,
        "and none made twice and taken away: {}",
        created(&fake)
    );
}

#[tokio::test]
async fn a_removal_is_shown_before_the_key_runs_again() {
    let (fake, stage) = web(3).await;
    settle(&stage).await;
    fake.hold_watches("pods");
    fake.put(set("web", 2));
    until(&fake, "one was removed", |f| f.objects("pods").len() == 2).await;
    fake.put(set("web", 1));
    for _ in 0..2000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(
        fake.objects("pods").len(),
        2,
        "it removed again on a view that still had the pod"
    );
    fake.release_watches("pods");
    has_pods(&fake, 1).await;
}

#[tokio::test]
async fn a_swap_in_the_middle_of_its_intents_doubles_nothing() {
    let fake = Fake::new();
    let native = Native::new("apps/v1/ReplicaSet", replicas("old"));
    let swapped = Arc::new(AtomicUsize::new(0));
    let (count, exchange) = (swapped.clone(), native.clone());
    fake.before_write(move |_, write| {
        // The third pod is being made when the plugin is exchanged; a swap asks every key to run.
        let is_pod = write.target.gvr.resource == "pods";
        if is_pod && count.fetch_add(1, Ordering::Relaxed) == 2 {
            exchange.swap(replicas("new"));
        }
        None
    });
    fake.put(set("web", 6));
    let stage = stage(&fake, native.clone());
    has_pods(&fake, 6).await;
    fake.put(set("web", 7));
    has_pods(&fake, 7).await;
    settle(&stage).await;
    assert_eq!(created(&fake), 7);
    let marks = fake
        .objects("pods")
        .iter()
        .filter(|pod| pod.labels.get("by") == Some("new"))
        .count();
    assert_eq!(
        marks, 1,
        "the old revision's plan was carried out to its end; the new one decided after that"
    );
}

#[tokio::test]
async fn a_lost_term_drops_what_is_left_and_the_next_one_decides_anew() {
    let fake = Fake::new();
    let (term, watched) = watch::channel(Some(1));
    let term = Arc::new(term);
    let (count, lose) = (AtomicUsize::new(0), term.clone());
    fake.before_write(move |_, write| {
        if write.target.gvr.resource == "pods" && count.fetch_add(1, Ordering::Relaxed) == 2 {
            lose.send_replace(None);
        }
        None
    });
    fake.put(set("web", 6));
    let _stage = stage_with(
        &fake,
        Native::new("apps/v1/ReplicaSet", replicas("a")),
        1,
        Some(watched),
    );
    until(&fake, "three pods", |f| f.objects("pods").len() == 3).await;
    for _ in 0..2000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(fake.objects("pods").len(), 3, "nothing is written without a term");
    term.send_replace(Some(2));
    has_pods(&fake, 6).await;
    assert_eq!(created(&fake), 6);
}

#[tokio::test]
async fn a_refused_intent_reaches_the_next_run() {
    let fake = Fake::new();
    fake.refuse_first_writes();
    fake.put(set("web", 2));
    let stage = stage(&fake, Native::new("apps/v1/ReplicaSet", replicas("a")));
    has_pods(&fake, 2).await;
    let runs = stage.log.of("web");
    let refused: Vec<_> = runs.iter().filter_map(|ran| ran.refused.clone()).collect();
    assert!(!refused.is_empty());
    assert_eq!(refused[0].intent, 0);
    assert_eq!(refused[0].why.reason, "conflict");
    for pair in runs.windows(2) {
        assert_eq!(pair[0].refused, pair[1].refused_before, "the very next run hears of it");
    }
    assert!(
        runs.iter()
            .any(|ran| { ran.refused_before.as_ref().is_some_and(|refusal| refusal.times == 1) })
    );
}

#[tokio::test]
async fn faults_and_panics_lose_no_key() {
    let fake = Fake::new();
    fake.put(set("web", 2));
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let native = Native::new("apps/v1/ReplicaSet", move |request, view| {
        match counted.fetch_add(1, Ordering::Relaxed) {
            0 => Err(Failure::Plugin {
                name: "x".into(),
                doing: "reconcile",
                reason: "trap".into(),
            }),
            1 => panic!("on purpose"),
            2 => Ok(Outcome {
                memo: vec![0; 5000].into(),
                ..Outcome::default()
            }),
            _ => replicas("a")(request, view),
        }
    });
    let stage = stage(&fake, native);
    has_pods(&fake, 2).await;
    assert_eq!(stage.controller.figures().faults, 3);
}

#[tokio::test]
async fn finalizers_evictions_scale_and_collections() {
    let fake = Fake::new();
    for name in ["a", "b", "c"] {
        let meta = json!({"name": name, "labels": {"app": name}, "finalizers": ["x/y", "x/z"]});
        fake.put(json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta}));
    }
    fake.put(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "d", "labels": {"app": "d"}}, "spec": {"nodeName": "n"}}));
    fake.put(set("web", 1));
    fake.put(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "go"}}));
    let native = Native::new("v1/ConfigMap", |request, _| {
        if !request.memo.is_empty() {
            return Ok(Outcome {
                memo: request.memo.clone(),
                ..Outcome::default()
            });
        }
        let pod = |name: &str| Key::new(pods(), "default", name);
        let finalizer = |name: &str, finalizer: &str| Intent::RemoveFinalizer {
            key: pod(name),
            finalizer: finalizer.into(),
            when: Precondition::None,
        };
        let intents = vec![
            finalizer("a", "x/y"),
            finalizer("a", "x/none"),
            finalizer("gone", "x/y"),
            Intent::Evict {
                key: pod("b"),
                when: Precondition::None,
            },
            Intent::SetScale {
                key: Key::new(Gvk::new("apps", "v1", "ReplicaSet"), "default", "web"),
                replicas: 5,
                when: Precondition::None,
            },
            Intent::RemoveAll {
                kind: pods(),
                which: Selection::namespace("default").labelled("app=c"),
            },
            Intent::RemoveAll {
                kind: pods(),
                which: Selection::default().equals(".spec.nodeName", "n"),
            },
            Intent::Remove {
                key: pod("gone"),
                when: Precondition::Uid("u".into()),
                propagation: Propagation::Background,
            },
            Intent::Event(crate::Event {
                about: pod("a"),
                uid: "u".into(),
                warning: true,
                reason: "R".into(),
                message: "m".into(),
            }),
            Intent::Event(crate::Event {
                about: pod("a"),
                uid: "u".into(),
                warning: true,
                reason: "R".into(),
                message: "m".into(),
            }),
        ];
        Ok(Outcome {
            intents,
            memo: Bytes::from_static(b"done"),
        })
    });
    let stage = stage(&fake, native);
    stage.log.until("it ran", |runs| !runs.is_empty()).await;
    assert_eq!(stage.log.of("go")[0].refused, None);
    let meta = |name: &str| fake.object(&key(("", "pods"), name)).unwrap().value()["metadata"].clone();
    assert_eq!(meta("a")["finalizers"], json!(["x/z"]));
    assert!(meta("b")["deletionTimestamp"].is_string() && meta("c")["deletionTimestamp"].is_string());
    assert!(fake.object(&key(("", "pods"), "d")).is_none());
    assert_eq!(fake.object(&key(SETS, "web")).unwrap().value()["spec"]["replicas"], 5);
    let events = fake.objects("events");
    assert_eq!((events.len(), events[0].value()["count"].as_i64()), (1, Some(2)));
}
