//! Any sequence of writes, lists and watches against a model so simple that it is right: every state there ever was.

use std::collections::BTreeMap;

use client::{Cluster, Collection, ListOptions, PatchKind, ReadVersion, WatchEvent, WatchOptions, WatchStream};
use futures::{FutureExt, StreamExt};
use model::{Failure, Object, ResourceVersion};
use proptest::prelude::*;
use serde_json::json;

use super::support::*;
use crate::{Limits, Registry};

/// Namespace and name.
type Key = (&'static str, &'static str);
/// The label `l` and the datum `k` of a ConfigMap.
type Content = (u8, u8);
type State = BTreeMap<Key, (Content, ResourceVersion)>;

const KEYS: [Key; 5] = [("a", "one"), ("a", "two"), ("b", "one"), ("b", "three"), ("b", "two")];

#[derive(Debug, Clone)]
enum Step {
    /// Makes or changes it; to what it is already now and then, which is no change.
    Put {
        key: usize,
        content: Content,
    },
    Delete {
        key: usize,
    },
    /// The state of that many changes ago, whole (limit 0) or its first page.
    List {
        choice: Choice,
        ago: usize,
        limit: u64,
    },
    /// The next page of one of the lists that have more.
    Continue {
        list: usize,
    },
    Watch {
        choice: Choice,
        start: Start,
    },
    /// Everything one of the watchers should have heard by now.
    Read {
        watch: usize,
    },
}

#[derive(Debug, Clone, Copy)]
enum Start {
    /// The state first, whichever.
    Any,
    /// The state first, then a bookmark.
    Initial,
    /// After the version of that many changes ago.
    Ago(usize),
}

/// What a reader asks for.
#[derive(Debug, Clone, Copy)]
struct Choice {
    namespace: Option<&'static str>,
    /// Equal, or not equal.
    label: Option<(bool, u8)>,
    name: Option<&'static str>,
}

impl Choice {
    fn takes(&self, (namespace, name): Key, (label, _): Content) -> bool {
        self.namespace.is_none_or(|of| of == namespace)
            && self.label.is_none_or(|(equal, of)| equal == (of == label))
            && self.name.is_none_or(|of| of == name)
    }

    fn collection(&self) -> Collection {
        Collection {
            gvr: gvr("configmaps"),
            namespace: self.namespace.map(str::to_owned),
        }
    }

    /// Selectors of labels and of fields.
    fn selectors(&self) -> (String, String) {
        let labels = self
            .label
            .map(|(equal, of)| format!("l{}{of}", if equal { "=" } else { "!=" }));
        let fields = self.name.map(|name| format!("metadata.name={name}"));
        (labels.unwrap_or_default(), fields.unwrap_or_default())
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let choice = || {
        let namespace = prop::option::weighted(0.4, prop::sample::select(vec!["a", "b"]));
        let label = prop::option::weighted(0.5, (prop::bool::weighted(0.7), 0..3u8));
        let name = prop::option::weighted(0.2, prop::sample::select(vec!["one", "two"]));
        (namespace, label, name).prop_map(|(namespace, label, name)| Choice { namespace, label, name })
    };
    let start = prop_oneof![
        Just(Start::Any),
        Just(Start::Initial),
        (0..12usize).prop_map(Start::Ago)
    ];
    let step = prop_oneof![
        10 => (0..KEYS.len(), (0..3u8, 0..2u8)).prop_map(|(key, content)| Step::Put { key, content }),
        4 => (0..KEYS.len()).prop_map(|key| Step::Delete { key }),
        3 => (choice(), 0..12usize, 0..4u64).prop_map(|(choice, ago, limit)| Step::List { choice, ago, limit }),
        3 => (0..8usize).prop_map(|list| Step::Continue { list }),
        2 => (choice(), start).prop_map(|(choice, start)| Step::Watch { choice, start }),
        2 => (0..8usize).prop_map(|watch| Step::Read { watch }),
    ];
    prop::collection::vec(step, 1..80)
}

/// An event or an object of a list, as the model and the registry both can say it.
type Seen = (&'static str, Key, Content, ResourceVersion);

fn seen(word: &'static str, object: &Object) -> Seen {
    let value = object.value();
    let digit = |text: &serde_json::Value| text.as_str().and_then(|text| text.parse().ok()).expect("a digit");
    let (namespace, name) = (object.key.namespace.as_str(), object.key.name.as_str());
    let key = KEYS
        .into_iter()
        .find(|key| *key == (namespace, name))
        .expect("one of the keys");
    let content = (digit(&value["metadata"]["labels"]["l"]), digit(&value["data"]["k"]));
    (word, key, content, object.version)
}

/// Every state, oldest first, with the version that made it.
struct Model(Vec<(ResourceVersion, State)>);

impl Model {
    fn now(&self) -> usize {
        self.0.len() - 1
    }

    fn state(&self) -> State {
        self.0[self.now()].1.clone()
    }

    fn chosen(&self, at: usize, choice: &Choice) -> Vec<Seen> {
        let all = self.0[at].1.iter();
        let taken = all.filter(|(key, (content, _))| choice.takes(**key, *content));
        taken
            .map(|(key, (content, version))| ("ADDED", *key, *content, *version))
            .collect()
    }

    /// What a watcher hears of the change that made the state `at`.
    fn event(&self, at: usize, choice: &Choice) -> Option<Seen> {
        let ((_, before), (version, after)) = (&self.0[at - 1], &self.0[at]);
        let key = *KEYS
            .iter()
            .find(|key| before.get(*key) != after.get(*key))
            .expect("each state is another");
        let chosen = |state: &State| {
            state
                .get(&key)
                .map(|at| at.0)
                .filter(|content| choice.takes(key, *content))
        };
        match (chosen(before), chosen(after)) {
            (None, None) => None,
            (None, Some(content)) => Some(("ADDED", key, content, *version)),
            (Some(_), Some(content)) => Some(("MODIFIED", key, content, *version)),
            (Some(last), None) => Some(("DELETED", key, last, *version)),
        }
    }
}

struct Paging {
    choice: Choice,
    version: ResourceVersion,
    token: String,
    rest: Vec<Seen>,
}

struct Watching {
    choice: Choice,
    stream: WatchStream,
    /// All up to this state was heard.
    heard: usize,
}

/// What the registry forgets: with few `kept`, it may say so to whoever asks for more, and to nobody else.
async fn walk(steps: &[Step], registry: &Registry, kept: usize) {
    let shop = Shop(registry);
    let begin = shop.list("configmaps", ListOptions::default()).await.unwrap();
    let mut model = Model(vec![(begin.version, State::new())]);
    let (mut lists, mut watches): (Vec<Paging>, Vec<Watching>) = (Vec::new(), Vec::new());
    for step in steps {
        if kept < steps.len() {
            // What the cache has yet to hear from the store counts as behind, too; here it has heard all.
            shop.list("configmaps", ListOptions::default()).await.unwrap();
        }
        match step {
            Step::Put { key, content } => put(&shop, &mut model, KEYS[*key], *content).await,
            Step::Delete { key } => {
                let key @ (namespace, name) = KEYS[*key];
                let done = shop.delete(&format!("configmaps/{namespace}/{name}")).await;
                let mut state = model.state();
                if state.remove(&key).is_none() {
                    assert!(matches!(done, Err(Failure::NotFound(_))), "{done:?}");
                    continue;
                }
                let version = done.unwrap().object().expect("what it was at last").version;
                assert!(version > model.0[model.now()].0);
                model.0.push((version, state));
            }
            Step::List { choice, ago, limit } => {
                let at = model.now().saturating_sub(*ago);
                let version = if at == model.now() {
                    ReadVersion::Latest
                } else {
                    ReadVersion::Exactly(model.0[at].0)
                };
                let (labels, fields) = choice.selectors();
                let options = ListOptions {
                    labels,
                    fields,
                    limit: *limit,
                    version,
                    ..ListOptions::default()
                };
                let paging = Paging {
                    choice: *choice,
                    version: model.0[at].0,
                    token: String::new(),
                    rest: model.chosen(at, choice),
                };
                lists.extend(page(registry, paging, options, model.now() - at >= kept).await);
            }
            Step::Continue { list } if !lists.is_empty() => {
                let paging = lists.swap_remove(list % lists.len());
                let (labels, fields) = paging.choice.selectors();
                let continue_token = paging.token.clone();
                let options = ListOptions {
                    labels,
                    fields,
                    limit: 2,
                    continue_token,
                    ..ListOptions::default()
                };
                let began = model.0.iter().rposition(|(version, _)| *version <= paging.version);
                let old = model.now() - began.expect("it was a version") >= kept;
                lists.extend(page(registry, paging, options, old).await);
            }
            Step::Watch { choice, start } => watches.extend(watch(registry, &model, *choice, *start, kept).await),
            Step::Read { watch } if !watches.is_empty() => {
                let watching = watches.swap_remove(watch % watches.len());
                watches.extend(hear(&model, watching, kept).await);
            }
            Step::Continue { .. } | Step::Read { .. } => {}
        }
    }
    for watching in watches {
        hear(&model, watching, kept).await;
    }
}

async fn put(shop: &Shop<'_>, model: &mut Model, key @ (namespace, name): Key, content @ (label, datum): Content) {
    let mut state = model.state();
    let known = state.get(&key).copied();
    let (label, data) = (json!({"l": label.to_string()}), json!({"k": datum.to_string()}));
    let object = match known {
        None => {
            let metadata = json!({"name": name, "labels": label});
            let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data});
            shop.create(&format!("configmaps/{namespace}"), object).await
        }
        Some(_) => {
            let patch = json!({"metadata": {"labels": label}, "data": data});
            let path = format!("configmaps/{namespace}/{name}");
            shop.patch(&path, PatchKind::Merge, patch).await
        }
    };
    let version = object.unwrap().version;
    match known {
        Some((old, made)) if old == content => assert_eq!(version, made, "what changes nothing writes nothing"),
        _ => {
            assert!(version > model.0[model.now()].0);
            state.insert(key, (content, version));
            model.0.push((version, state));
        }
    }
}

/// One page, which is the next of what is left; the paging again if there are more.
async fn page(registry: &Registry, mut paging: Paging, options: ListOptions, old: bool) -> Option<Paging> {
    let list = match registry.list(&caller(), &paging.choice.collection(), &options).await {
        Ok(list) => list,
        Err(Failure::Expired(_)) if old => return None,
        Err(failure) => panic!("{options:?}: {failure}"),
    };
    let shown = match options.limit as usize {
        0 => paging.rest.len(),
        limit => limit.min(paging.rest.len()),
    };
    let rest = paging.rest.split_off(shown);
    let items: Vec<Seen> = list.items.iter().map(|object| seen("ADDED", object)).collect();
    assert_eq!((items, list.version), (paging.rest, paging.version), "{options:?}");
    assert_eq!(list.continue_token.is_empty(), rest.is_empty(), "{options:?}");
    // Kubernetes counts only where it needs not look at each.
    let counted = !rest.is_empty() && paging.choice.label.is_none() && paging.choice.name.is_none();
    assert_eq!(list.remaining, counted.then_some(rest.len() as u64), "{options:?}");
    paging.rest = rest;
    paging.token = list.continue_token;
    (!paging.token.is_empty()).then_some(paging)
}

/// Begins to watch, and reads the state where it comes first.
async fn watch(registry: &Registry, model: &Model, choice: Choice, start: Start, kept: usize) -> Option<Watching> {
    let mut heard = model.now();
    let (labels, fields) = choice.selectors();
    let mut options = WatchOptions {
        labels,
        fields,
        ..WatchOptions::default()
    };
    match start {
        Start::Any => {}
        Start::Initial => (options.bookmarks, options.send_initial_events) = (true, true),
        Start::Ago(ago) => {
            heard = heard.saturating_sub(ago);
            options.from = Some(model.0[heard].0);
        }
    }
    let mut stream = match registry.watch(&caller(), &choice.collection(), &options).await {
        Ok(stream) => stream,
        Err(Failure::Expired(_)) if model.now() - heard >= kept => return None,
        Err(failure) => panic!("{options:?}: {failure}"),
    };
    if !matches!(start, Start::Ago(_)) {
        let expected = model.chosen(heard, &choice);
        let mut state = Vec::new();
        while state.len() < expected.len() {
            match event(&mut stream).await {
                Some(Ok(WatchEvent::Added(object))) => state.push(seen("ADDED", &object)),
                other => panic!("{options:?}: {other:?}"),
            }
        }
        state.sort_unstable();
        assert_eq!(state, expected, "{options:?}");
    }
    if matches!(start, Start::Initial) {
        match event(&mut stream).await {
            Some(Ok(WatchEvent::Bookmark {
                version,
                initial_events_end: true,
            })) => {
                assert!(version >= model.0[heard].0);
            }
            other => panic!("{options:?}: {other:?}"),
        }
    }
    Some(Watching { choice, stream, heard })
}

/// Reads what there is to hear, and that there is no more; the watcher again if it goes on.
async fn hear(model: &Model, mut watching: Watching, kept: usize) -> Option<Watching> {
    let behind = model.now() - watching.heard;
    for at in watching.heard + 1..=model.now() {
        let Some(expected) = model.event(at, &watching.choice) else {
            continue;
        };
        let heard = match event(&mut watching.stream).await {
            Some(Ok(WatchEvent::Added(object))) => seen("ADDED", &object),
            Some(Ok(WatchEvent::Modified(object))) => seen("MODIFIED", &object),
            Some(Ok(WatchEvent::Deleted(object))) => seen("DELETED", &object),
            Some(Err(Failure::Expired(_))) if behind >= kept => return None,
            other => panic!("{:?}: {other:?} in place of {expected:?}", watching.choice),
        };
        assert_eq!(heard, expected, "{:?}", watching.choice);
    }
    let more = watching.stream.next().now_or_never();
    match more {
        None => {}
        Some(Some(Err(Failure::Expired(_)))) if behind >= kept => return None,
        Some(more) => panic!("{:?}: {more:?} where nothing changed", watching.choice),
    }
    watching.heard = model.now();
    Some(watching)
}

fn obeys(steps: &[Step], limits: Limits) {
    let kept = limits.window.min(limits.behind);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let options = crate::Options { limits, ..options() };
        walk(steps, &open_with(options).await, kept).await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn reads_agree_with_the_writes(steps in steps()) {
        obeys(&steps, Limits::default());
    }

    #[test]
    fn a_short_memory_is_told_and_never_lies(steps in steps()) {
        obeys(&steps, Limits { window: 4, behind: 4, pages: 1 });
    }
}
