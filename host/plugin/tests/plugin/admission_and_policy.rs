//! The other two worlds, as their crates call them.

use plugin::world::policy::Pod;
use plugin::{FaultKind, Load, Plugin, PluginName, Policy};

use crate::{host, load};

fn pod(id: u64) -> Pod {
    Pod { id, class: 0 }
}

async fn policy() -> (std::sync::Arc<Plugin>, Policy) {
    let plugin = Plugin::new(PluginName::new("refuses_config"));
    let loaded = host()
        .load(Load {
            figures: plugin.figures().clone(),
            ..load("refuses_config")
        })
        .await;
    plugin.swap(loaded.unwrap());
    let policy = Policy::start(&plugin).await.unwrap();
    (plugin, policy)
}

#[tokio::test]
async fn a_policy_answers_from_its_mirror() {
    let (_, mut policy) = policy().await;
    let points = policy.points();
    assert!(points.filter && !points.score && !points.what_if);
    let all = vec![0b1111];
    assert_eq!(
        policy.filter(pod(1), &all, false).await.unwrap().unwrap().passed,
        [0].repeat(0)
    );
    policy.sync(&vec![0; 2]).await.unwrap().unwrap();
    assert_eq!(
        policy.filter(pod(1), &all, false).await.unwrap().unwrap().passed,
        [0b11]
    );
    let fault = policy.score(pod(1), &all).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::WrongWorld);
    assert!(!policy.is_stale());
}

#[tokio::test]
async fn a_fault_takes_the_mirror_and_a_successor_is_filled_anew() {
    let (plugin, mut policy) = policy().await;
    policy.sync(&vec![0; 2]).await.unwrap().unwrap();
    let fault = policy.filter(pod(666), &vec![0b1111], false).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Trap);
    assert!(fault.message.contains("the number of the beast"), "{}", fault.message);
    assert!(policy.is_lost() && policy.is_stale());
    let mut next = policy.successor().await.unwrap();
    next.sync(&vec![0; 3]).await.unwrap().unwrap();
    assert_eq!(
        next.filter(pod(1), &vec![0b1111], false).await.unwrap().unwrap().passed,
        [0b111]
    );
    assert_eq!(plugin.read_figures().faults, 1);
}

#[tokio::test]
async fn a_swap_is_filled_before_the_cut() {
    let (plugin, mut old) = policy().await;
    old.sync(&vec![0; 1]).await.unwrap().unwrap();
    let config = r#"{"word":"please"}"#.into();
    let next = host()
        .load(Load {
            config,
            figures: plugin.figures().clone(),
            ..load("refuses_config")
        })
        .await;
    plugin.swap(next.unwrap());
    assert!(old.is_stale() && !old.is_lost());
    // The old one answers until the new one has all it needs.
    assert_eq!(
        old.filter(pod(1), &vec![0b1111], false).await.unwrap().unwrap().passed,
        [0b1]
    );
    let mut new = old.successor().await.unwrap();
    new.sync(&vec![0; 4]).await.unwrap().unwrap();
    assert_eq!(
        new.filter(pod(1), &vec![0b1111], false).await.unwrap().unwrap().passed,
        [0b1111]
    );
    assert!(!new.is_stale());
}
