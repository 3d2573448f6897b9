//! Exchanging a revision while it is being called.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use plugin::{Controller, FaultKind, Limits, Load, Plugin, PluginName};

use crate::{Echo, controller, guest, host, load, request};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_is_lost_in_a_hundred_swaps() {
    let good = controller("well_behaved", None).await;
    let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let (good, stop, calls) = (good.clone(), stop.clone(), calls.clone());
            tokio::spawn(async move {
                let mut longest = Duration::ZERO;
                while !stop.load(Relaxed) {
                    let started = Instant::now();
                    let answer = good.reconcile(&request(b"3"), Box::new(Echo)).await;
                    longest = longest.max(started.elapsed());
                    assert_eq!(answer.expect("no call is lost").expect("or refused").memo, b"3");
                    calls.fetch_add(1, Relaxed);
                    tokio::task::yield_now().await;
                }
                longest
            })
        })
        .collect();
    let mut generation = good.plugin().generation();
    for n in 0..100 {
        let config: Arc<str> = format!(r#"{{"greeting":"{n}"}}"#).into();
        let figures = good.plugin().figures().clone();
        let next = host()
            .load(Load {
                config: config.clone(),
                figures,
                ..load("well_behaved")
            })
            .await
            .unwrap();
        let old = good.plugin().swap(next).expect("one served before");
        let drained = tokio::time::timeout(Duration::from_secs(20), old.drained()).await;
        assert!(drained.is_ok(), "calls in the old revision end");
        assert_eq!(good.plugin().current().unwrap().config(), &*config);
    }
    assert!(generation.has_changed().unwrap());
    assert_eq!(*generation.borrow_and_update(), 101);
    stop.store(true, Relaxed);
    for caller in callers {
        let longest = caller.await.expect("callers see no fault");
        assert!(longest < Duration::from_secs(1), "a call waited {longest:?} for a swap");
    }
    assert!(calls.load(Relaxed) > 100);
    assert_eq!(good.plugin().read_figures().faults, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_under_way_ends_in_the_revision_it_began_in() {
    let plugin = Plugin::new(PluginName::new("changing"));
    let limits = Limits {
        deadline: Duration::from_millis(300),
        ..Limits::controller()
    };
    let slow = host()
        .load(Load {
            limits: Some(limits),
            ..load("slow")
        })
        .await
        .unwrap();
    plugin.swap(slow.clone());
    let caller = Controller::new(plugin.clone());
    let waiting = tokio::spawn(async move { caller.reconcile(&request(b""), Box::new(Echo)).await });
    while slow.calls() == 0 {
        tokio::task::yield_now().await;
    }
    plugin.swap(host().load(load("well_behaved")).await.unwrap());
    let answer = Controller::new(plugin.clone())
        .reconcile(&request(b"0"), Box::new(Echo))
        .await;
    assert_eq!(answer.unwrap().unwrap().memo, b"0", "the new one serves at once");
    let fault = waiting.await.unwrap().unwrap_err();
    assert_eq!((fault.kind, fault.digest), (FaultKind::Deadline, Some(slow.digest())));
    slow.drained().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revision_that_never_worked_makes_way_for_the_one_that_did() {
    let good = controller("well_behaved", None).await;
    let proven = good.plugin().current().unwrap();
    for _ in 0..10 {
        good.reconcile(&request(b"0"), Box::new(Echo)).await.unwrap().unwrap();
    }
    let bad = Load {
        component: guest("trap"),
        figures: good.plugin().figures().clone(),
        ..load("well_behaved")
    };
    good.plugin().swap(host().load(bad).await.unwrap());
    for _ in 0..3 {
        assert_eq!(
            good.reconcile(&request(b"0"), Box::new(Echo)).await.unwrap_err().kind,
            FaultKind::Trap
        );
    }
    assert_eq!(
        good.plugin().current().unwrap().digest(),
        proven.digest(),
        "the last good revision serves on"
    );
    assert_eq!(
        good.reconcile(&request(b"0"), Box::new(Echo))
            .await
            .unwrap()
            .unwrap()
            .memo,
        b"0"
    );
}

#[tokio::test]
async fn what_is_unloaded_says_so() {
    let good = controller("well_behaved", None).await;
    good.plugin().unload();
    let fault = good.reconcile(&request(b"0"), Box::new(Echo)).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Load);
    assert!(
        fault.message.contains("no revision of it is loaded"),
        "{}",
        fault.message
    );
}
