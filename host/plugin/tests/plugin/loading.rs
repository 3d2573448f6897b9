//! What is loaded, what is refused and in which words, and how fast it is the second time.

use std::sync::Arc;

use plugin::{FaultKind, Grants, Host, Load, Origin, Rule, World};

use crate::{digests, guest, host, load, refused, scratch};

#[tokio::test]
async fn what_is_no_component_is_refused_with_what_to_do() {
    for (bytes, kind, says) in [
        (b"".as_slice(), FaultKind::Load, "this is not WebAssembly"),
        (b"#!/bin/sh\nrm -rf /", FaultKind::Load, "this is not WebAssembly"),
        (b"\0asm\x01\0\0\0", FaultKind::Load, "a core module, not a component"),
        (b"\0asm\x0d\0\x01\0garbage", FaultKind::Load, "it does not compile"),
        (
            b"\0asm\x0d\0\x01\0",
            FaultKind::WrongWorld,
            "it exports nothing; it must export",
        ),
    ] {
        let fault = refused(Load {
            component: bytes.into(),
            ..load("well_behaved")
        })
        .await;
        assert_eq!(fault.kind, kind, "{fault}");
        assert!(fault.message.contains(says), "{}", fault.message);
    }
    let torn: Arc<[u8]> = guest("well_behaved")[..5_000].into();
    let fault = refused(Load {
        component: torn,
        ..load("well_behaved")
    })
    .await;
    assert_eq!(fault.kind, FaultKind::Load, "{fault}");
}

#[tokio::test]
async fn a_controller_is_no_policy() {
    let fault = refused(Load {
        world: World::Policy,
        ..load("well_behaved")
    })
    .await;
    assert_eq!(fault.kind, FaultKind::WrongWorld);
    assert!(
        fault.message.contains("pilotis:controller/reconcile"),
        "{}",
        fault.message
    );
    assert!(
        fault
            .message
            .contains("must export pilotis:scheduler/about and pilotis:scheduler/mirror"),
        "{}",
        fault.message
    );
}

#[tokio::test]
async fn asking_for_more_than_is_granted_names_the_rules() {
    let rules = |verbs: &[&str]| {
        let verbs = verbs.iter().map(|v| (*v).to_owned()).collect();
        Grants::Rules(vec![Rule {
            api_groups: vec![String::new()],
            resources: vec!["configmaps".into()],
            verbs,
        }])
    };
    let fault = refused(Load {
        grants: rules(&["get"]),
        ..load("well_behaved")
    })
    .await;
    assert_eq!(fault.kind, FaultKind::Grants);
    assert!(fault.message.contains("delete configmaps"), "{}", fault.message);
    assert!(
        host()
            .load(Load {
                grants: rules(&["get", "delete"]),
                ..load("well_behaved")
            })
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn a_configuration_is_compared_with_the_schema_and_then_shown_to_the_plugin() {
    let fault = refused(Load {
        config: r#"{"greeting":1}"#.into(),
        ..load("well_behaved")
    })
    .await;
    assert_eq!(
        (fault.kind, fault.message.as_str()),
        (FaultKind::Configure, "spec.config.greeting: must be of type string")
    );
    let fault = refused(Load {
        config: r#"{"word":"now"}"#.into(),
        ..load("refuses_config")
    })
    .await;
    assert_eq!(fault.kind, FaultKind::Configure);
    assert!(fault.message.contains("the word is missing"), "{}", fault.message);
    let loaded = host()
        .load(Load {
            config: r#"{"word":"please"}"#.into(),
            ..load("refuses_config")
        })
        .await
        .unwrap();
    assert_eq!(loaded.worlds(), ["policy"]);
    assert_eq!(loaded.about().policy.as_ref().unwrap().weight, 3);
}

#[tokio::test]
async fn the_second_load_takes_the_code_from_the_cache() {
    let folder = scratch("second-load");
    let _ = std::fs::remove_dir_all(&folder);
    let first = Host::new(&folder).unwrap().load(load("well_behaved")).await.unwrap();
    assert_eq!(first.origin(), Origin::Compiled);
    let again = Host::new(&folder).unwrap();
    let second = again.load(load("well_behaved")).await.unwrap();
    assert_eq!((second.origin(), digests(&second)), (Origin::Cached, digests(&first)));
}

#[tokio::test]
async fn a_revision_says_what_it_is() {
    let loaded = host().load(load("well_behaved")).await.unwrap();
    assert_eq!(loaded.worlds(), ["controller"]);
    assert_eq!(
        loaded.interfaces(),
        [
            "pilotis:core/lifecycle",
            "pilotis:controller/about",
            "pilotis:controller/reconcile"
        ]
    );
    let about = loaded.about();
    assert_eq!(about.controller.as_ref().unwrap().subject, "v1/ConfigMap");
    let asks: Vec<String> = about.asks().iter().map(ToString::to_string).collect();
    assert_eq!(asks, ["get configmaps", "delete configmaps"]);
}
