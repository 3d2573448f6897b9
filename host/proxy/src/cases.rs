//! Runs `cases/*.yaml`: objects in, plan, rules and DNS answers out. `BLESS=1 cargo test -p proxy` rewrites the answers.
//!
//! A document of kind `Here` says where the proxy runs, `Then` starts a next step that keeps what was there, `Gone` takes an
//! object away, `Ask` lists DNS questions. All others are Kubernetes objects.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use hickory_proto::rr::{Name, RecordType};
use ipnet::IpNet;
use serde::Deserialize as _;
use serde::de::DeserializeOwned;
use serde_yaml_ng::Value;

use crate::dns::Lookup;
use crate::facts::World;
use crate::nftables::{Settings, Shown};
use crate::plan::plan;

#[test]
fn cases_have_the_answers_they_should() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
    let mut cases: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    cases.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    cases.sort();
    assert!(cases.len() >= 10, "the cases are in {}", folder.display());
    let bless = std::env::var_os("BLESS").is_some();
    let mut wrong = Vec::new();
    for case in cases {
        let said = tell(&std::fs::read_to_string(&case).unwrap());
        let expected = case.with_extension("out");
        if bless {
            std::fs::write(&expected, &said).unwrap();
        } else if std::fs::read_to_string(&expected).unwrap_or_default() != said {
            wrong.push(format!("{}:\n{said}", case.display()));
        }
    }
    assert!(
        wrong.is_empty(),
        "not as the .out files say (BLESS=1 rewrites them):\n{}",
        wrong.join("\n")
    );
}

#[derive(Default)]
struct Story {
    objects: BTreeMap<(String, String, String), Value>,
    node: String,
    settings: Settings,
    reverse: Vec<IpNet>,
    shown: Shown,
    questions: Vec<String>,
    said: String,
}

fn tell(text: &str) -> String {
    let mut story = Story::default();
    for document in serde_yaml_ng::Deserializer::from_str(text) {
        let document = Value::deserialize(document).unwrap();
        let word = |path: &[&str]| {
            path.iter()
                .try_fold(&document, |at, key| at.get(key))
                .and_then(Value::as_str)
                .unwrap_or("")
                .to_owned()
        };
        let kind = word(&["kind"]);
        match kind.as_str() {
            "Here" => story.here(&document),
            "Then" => story.step(),
            "Ask" => story.questions = list(&document, "questions"),
            "Gone" => drop(
                story
                    .objects
                    .remove(&(word(&["of"]), word(&["namespace"]), word(&["name"]))),
            ),
            _ => {
                let key = (kind, word(&["metadata", "namespace"]), word(&["metadata", "name"]));
                story.objects.insert(key, document);
            }
        }
    }
    story.step();
    story.said
}

impl Story {
    fn here(&mut self, document: &Value) {
        self.node = document.get("node").and_then(Value::as_str).unwrap_or("").to_owned();
        self.settings.pod_cidrs = list(document, "podCIDRs");
        self.settings.node_port_addresses = list(document, "nodePortAddresses");
        self.reverse = list(document, "reverse");
    }

    fn world(&self) -> World {
        fn all<T: DeserializeOwned>(objects: &BTreeMap<(String, String, String), Value>, kind: &str) -> Vec<Arc<T>> {
            let of_kind = objects.iter().filter(|(key, _)| key.0 == kind);
            of_kind
                .map(|(_, object)| Arc::new(serde_yaml_ng::from_value(object.clone()).unwrap()))
                .collect()
        }
        World {
            services: all(&self.objects, "Service"),
            slices: all(&self.objects, "EndpointSlice"),
            node: all(&self.objects, "Node").pop(),
        }
    }

    fn step(&mut self) {
        let world = self.world();
        if !self.questions.is_empty() {
            let lookup = Lookup::new("cluster.local", &self.reverse, &world);
            for question in &self.questions {
                let (kind, name) = question.split_once(' ').unwrap();
                let kind: RecordType = kind.parse().unwrap();
                writeln!(
                    self.said,
                    "? {question}\n{}",
                    lookup.told(&Name::from_ascii(name).unwrap(), kind)
                )
                .unwrap();
            }
            return;
        }
        let next = plan(&world, &self.node);
        let script = self.shown.next(&next, &self.settings);
        writeln!(self.said, "# plan\n{next}\n# rules\n{script}").unwrap();
    }
}

fn list<T: std::str::FromStr<Err: std::fmt::Debug>>(document: &Value, key: &str) -> Vec<T> {
    let texts = document.get(key).and_then(Value::as_sequence).into_iter().flatten();
    texts.map(|text| text.as_str().unwrap().parse().unwrap()).collect()
}
