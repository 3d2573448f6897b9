//! Laws of the mirror: a policy fed change by change answers as one that was given everything at once.

mod native;

use std::sync::Arc;

use model::{GroupResource, Gvk, Object, ObjectKey};
use scheduler::policy::Policy;
use scheduler::world::{Cursor, World};
use scheduler::{Dice, NodeSet};
use serde_json::{Value, json};

use native::Native;

fn policies(name: &str) -> [Box<dyn Policy>; 2] {
    [
        Box::new(Native::<scheduler_default::DefaultPolicy>::new(name, 1)),
        Box::new(Native::<scheduler_binpack::Binpack>::new(name, 1)),
    ]
}

fn object(kind: &str, resource: &str, value: &Value) -> Object {
    let meta = |field: &str| value["metadata"][field].as_str().unwrap_or_default();
    let key = ObjectKey::new(GroupResource::new("", resource), meta("namespace"), meta("name"));
    Object::from_value(Arc::new(Gvk::new("", "v1", kind)), key, value).expect("an object")
}

fn node(n: u64, dice: &mut Dice) -> Object {
    let name = format!("node-{n}");
    let taints = match dice.roll() % 4 {
        0 => json!([{"key": "a", "value": "b", "effect": "NoSchedule"}]),
        1 => json!([{"key": "a", "value": "b", "effect": "PreferNoSchedule"}]),
        _ => json!([]),
    };
    let labels = json!({"zone": format!("zone-{}", dice.roll() % 3), "disk": if dice.roll().is_multiple_of(2) { "ssd" } else { "hdd" }});
    object(
        "Node",
        "nodes",
        &json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "uid": name, "labels": labels},
            "spec": {"taints": taints, "unschedulable": dice.roll().is_multiple_of(10)},
            "status": {"allocatable": {"cpu": format!("{}", 2 + dice.roll() % 6), "memory": "8Gi", "pods": "5"}},
        }),
    )
}

fn pod(n: u64) -> Object {
    let app = format!("app-{}", n % 4);
    let mut spec = json!({"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": format!("{}m", 200 * (n % 4))}}}]});
    if n % 4 >= 2 {
        spec["topologySpreadConstraints"] = json!([{
            "maxSkew": 1, "topologyKey": "zone",
            "whenUnsatisfiable": if n.is_multiple_of(4) { "DoNotSchedule" } else { "ScheduleAnyway" },
            "labelSelector": {"matchLabels": {"app": app}},
        }]);
    }
    if n % 4 == 1 {
        spec["nodeSelector"] = json!({"disk": "ssd"});
        spec["tolerations"] = json!([{"key": "a", "operator": "Exists"}]);
    }
    let name = format!("pod-{n}");
    let meta = json!({"name": name, "namespace": "default", "uid": name, "labels": {"app": app}});
    object(
        "Pod",
        "pods",
        &json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}),
    )
}

async fn feed(policy: &mut dyn Policy, world: &World, cursor: &mut Cursor) {
    match world.since(*cursor) {
        Some((bytes, end)) => {
            policy.sync(bytes).await.expect("the layout is kept");
            *cursor = end;
        }
        None => {
            let snapshot = world.snapshot();
            let (end, bytes) = (snapshot.end(), snapshot.write());
            policy.sync(&bytes).await.expect("the layout is kept");
            *cursor = end;
        }
    }
}

#[tokio::test]
async fn change_by_change_is_as_everything_at_once() {
    for seed in 0..20 {
        println!("seed {seed}");
        let mut dice = Dice::new(seed);
        // Few nodes, so that much happens on each; or sets of several words.
        let (nodes, steps) = if seed % 4 == 0 { (200, 600) } else { (12, 150) };
        let mut world = World::default();
        let mut kept = policies("kept").map(|policy| (policy, Cursor::default()));
        for _ in 0..steps {
            let n = dice.roll() % nodes;
            let one = pod(dice.roll() % (3 * nodes));
            match dice.roll() % 6 {
                0 | 1 => world.put_node(&node(n, &mut dice)).expect("it reads"),
                2 => world.remove_node(&format!("node-{n}")),
                3 => world.remove_pod(&one.uid),
                _ => {
                    world.know_object(&one).expect("it reads");
                    world.assume(&one.uid, &format!("node-{n}"), false);
                }
            }
            if dice.roll().is_multiple_of(3) {
                let asked = world.know_object(&pod(100 + dice.roll() % 4)).expect("it reads");
                for ((policy, cursor), mut fresh) in kept.iter_mut().zip(policies("fresh")) {
                    feed(&mut **policy, &world, cursor).await;
                    feed(&mut *fresh, &world, &mut Cursor::default()).await;
                    let among: NodeSet = world.live().clone();
                    let kept = policy.filter(asked, &among, true).await.expect("it answers");
                    let anew = fresh.filter(asked, &among, true).await.expect("it answers");
                    assert_eq!(slots(&kept.passed), slots(&anew.passed), "seed {seed}");
                    assert_eq!(kept.texts, anew.texts, "seed {seed}");
                    let scores = policy.score(asked, &kept.passed).await.expect("it answers");
                    let anew = fresh.score(asked, &kept.passed).await.expect("it answers");
                    assert_eq!(scores, anew, "seed {seed}");
                }
            }
        }
    }
}

fn slots(set: &NodeSet) -> Vec<u32> {
    set.iter().collect()
}
