//! Each way to misbehave, and what it costs others: nothing.

use std::time::{Duration, Instant};

use plugin::{BreakerState, Controller, Fault, FaultKind, Limits};

use crate::{Echo, controller, load, refused, request};

/// Short, so that the tests are; the processor's time does not depend on what else the machine does.
fn limits() -> Limits {
    Limits {
        cpu: Duration::from_millis(100),
        deadline: Duration::from_secs(60),
        memory: 16 << 20,
        host_calls: 5_000,
        ..Limits::controller()
    }
}

async fn fault_of(culprit: &Controller) -> Fault {
    let name = culprit.plugin().name().as_str().to_owned();
    let answer = culprit.reconcile(&request(b""), Box::new(Echo)).await;
    let Err(fault) = answer else {
        panic!("{name} answered {answer:?}")
    };
    assert_eq!(fault.plugin.as_str(), name, "the fault names the culprit");
    assert_eq!(fault.digest, culprit.plugin().current().map(|r| r.digest()));
    fault
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_fault_is_a_value_that_says_what_happened() {
    for (name, kind, says) in [
        ("endless_loop", FaultKind::Cpu, "it used 100ms of processor time"),
        (
            "memory_hog",
            FaultKind::Memory,
            "it asked for more than the 16 MiB of memory it may have",
        ),
        ("trap", FaultKind::Trap, "no idea what to do about one"),
        ("stack_overflow", FaultKind::Stack, "its stack ran out"),
        ("chatty", FaultKind::Budget, "it made more than 5000 host calls"),
        (
            "oversized_answer",
            FaultKind::Answer,
            "it hands over more than 8388608 bytes at once",
        ),
        (
            "long_memo",
            FaultKind::Answer,
            "its memo has 4097 bytes; 4096 is the limit",
        ),
    ] {
        // The oversized answer needs room to be made in.
        let memory = if name == "oversized_answer" { 64 << 20 } else { 16 << 20 };
        let culprit = controller(name, Some(Limits { memory, ..limits() })).await;
        let fault = fault_of(&culprit).await;
        assert_eq!(fault.kind, kind, "{fault}");
        assert!(fault.message.contains(says), "{name}: {}", fault.message);
        assert_eq!(culprit.plugin().read_figures().faults, 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_ends_at_the_deadline() {
    let limits = Limits {
        deadline: Duration::from_millis(200),
        ..limits()
    };
    let culprit = controller("slow", Some(limits)).await;
    let started = Instant::now();
    let fault = fault_of(&culprit).await;
    assert_eq!(fault.kind, FaultKind::Deadline, "{fault}");
    assert!(started.elapsed() >= Duration::from_millis(200));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trap_tells_where() {
    let culprit = controller("trap", None).await;
    let fault = fault_of(&culprit).await;
    assert!(
        fault.backtrace.iter().any(|name| name.contains("an_honest_mistake")),
        "{:#?}",
        fault.backtrace
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_lines_is_cut_and_counted() {
    let culprit = controller("log_flood", None).await;
    let answer = culprit.reconcile(&request(b""), Box::new(Echo)).await.unwrap().unwrap();
    assert_eq!(answer.memo, b"still here", "talking too much is no fault");
    let figures = culprit.plugin().read_figures();
    assert!(figures.dropped_lines > 1_900, "{figures:?}");
    assert_eq!(figures.faults, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_imported_and_exported_decides_before_it_runs() {
    let fault = refused(load("wrong_world")).await;
    assert_eq!(fault.kind, FaultKind::WrongWorld, "{fault}");
    assert!(
        fault.message.contains("elsewhere:greetings/greet@1.0.0"),
        "{}",
        fault.message
    );

    let fault = refused(load("denied_import")).await;
    assert_eq!(fault.kind, FaultKind::DeniedImport, "{fault}");
    assert!(fault.message.contains("wasi:sockets/"), "{}", fault.message);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_go_on_while_some_misbehave() {
    let good = controller("well_behaved", None).await;
    let mut callers = Vec::new();
    for name in [
        "endless_loop",
        "memory_hog",
        "trap",
        "stack_overflow",
        "slow",
        "log_flood",
        "chatty",
        "oversized_answer",
    ] {
        callers.push(
            controller(
                name,
                Some(Limits {
                    deadline: Duration::from_secs(2),
                    ..limits()
                }),
            )
            .await,
        );
    }
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let culprits: Vec<_> = callers.iter().map(|caller| caller.plugin().clone()).collect();
    let tasks: Vec<_> = callers
        .into_iter()
        .map(|culprit| {
            let stop = stop.clone();
            tokio::spawn(async move {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let _ = culprit.reconcile(&request(b""), Box::new(Echo)).await;
                    tokio::task::yield_now().await;
                }
                culprit
            })
        })
        .collect();
    // Every good call is answered, with the right answer, while a loop, a sleeper and six others have their way.
    let (started, mut worst, mut n) = (Instant::now(), Duration::ZERO, 0);
    while n < 500 || culprits.iter().any(|culprit| culprit.read_figures().calls == 0) {
        assert!(started.elapsed() < Duration::from_secs(60), "some are never called");
        let memo = (n % 7).to_string().into_bytes();
        let asked = Instant::now();
        let answer = good.reconcile(&request(&memo), Box::new(Echo)).await;
        worst = worst.max(asked.elapsed());
        assert_eq!(answer.unwrap().unwrap().memo, memo);
        tokio::task::yield_now().await;
        n += 1;
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    for task in tasks {
        let culprit = task.await.expect("no fault reaches the task that called");
        let figures = culprit.plugin().read_figures();
        if culprit.plugin().name().as_str() != "log_flood" {
            assert!(figures.faults > 0, "{} was never found out", culprit.plugin().name());
        }
    }
    assert_eq!(good.plugin().read_figures().faults, 0);
    assert!(worst < Duration::from_secs(1), "one good call took {worst:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_faults_too_often_is_not_called_for_a_while() {
    let culprit = controller("trap", None).await;
    for _ in 0..3 {
        assert_eq!(fault_of(&culprit).await.kind, FaultKind::Trap);
    }
    let fault = fault_of(&culprit).await;
    assert_eq!(fault.kind, FaultKind::Open, "{fault}");
    assert!(
        fault.message.contains("no idea what to do"),
        "it says what happened: {}",
        fault.message
    );
    assert!(matches!(culprit.plugin().breaker(), BreakerState::Open(_)));
    assert_eq!(
        culprit.plugin().read_figures().faults,
        3,
        "what was not called is not counted"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_given_up_leaves_nothing_behind() {
    let culprit = controller("slow", None).await;
    for _ in 0..50 {
        let asked = request(b"");
        let give_up = tokio::time::timeout(Duration::from_millis(2), culprit.reconcile(&asked, Box::new(Echo)));
        assert!(give_up.await.is_err());
    }
    let revision = culprit.plugin().current().unwrap();
    assert_eq!(revision.calls(), 0, "every place is given back");
    assert_eq!(
        culprit.plugin().breaker(),
        BreakerState::Closed,
        "giving up is not the plugin's fault"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_do_not_queue_without_end() {
    let limits = Limits {
        deadline: Duration::from_millis(200),
        ..limits()
    };
    let culprit = controller("slow", Some(limits)).await;
    let callers: Vec<_> = (0..100)
        .map(|_| {
            let culprit = culprit.clone();
            tokio::spawn(async move {
                let answer = culprit.reconcile(&request(b""), Box::new(Echo)).await;
                answer.unwrap_err().kind
            })
        })
        .collect();
    let mut kinds = Vec::new();
    for caller in callers {
        let kind = tokio::time::timeout(Duration::from_secs(30), caller).await;
        kinds.push(kind.expect("everybody is answered").unwrap());
    }
    let count = |kind| kinds.iter().filter(|k| **k == kind).count();
    assert!(count(FaultKind::Deadline) >= 32, "those inside wait for the sleeper");
    assert_eq!(
        count(FaultKind::Deadline) + count(FaultKind::Host) + count(FaultKind::Open),
        100,
        "{kinds:?}"
    );
}
