//! What each kind makes of documents, kept in `cases/KIND.txt`: short ones as they are filled in, wrong ones with what is
//! said about them, changes with what may not change. `BLESS=1 cargo test -p registry cases` writes the answers.
//!
//! A case is a line `> VERB PATH`, a document in YAML, `----` and the answer. `create` makes an object (named `a`, unless
//! the document names it); `change` merges the document into one that is there, through the door the path ends with.

use std::fmt::Write as _;

use client::PatchKind;
use model::Failure;
use serde_json::{Value, json};

use super::support::*;
use crate::Registry;

struct Case<'t> {
    title: &'t str,
    document: String,
}

fn cases(text: &str) -> (String, Vec<Case<'_>>) {
    let (mut head, mut all): (String, Vec<Case<'_>>) = Default::default();
    let mut answer = false;
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("> ") {
            all.push(Case {
                title,
                document: String::new(),
            });
            answer = false;
        } else if line == "----" {
            answer = true;
        } else if let Some(case) = all.last_mut().filter(|_| !answer) {
            case.document.push_str(line);
            case.document.push('\n');
        } else if all.is_empty() {
            head.push_str(line);
            head.push('\n');
        }
    }
    (head, all)
}

async fn answer(registry: &Registry, case: &Case<'_>) -> String {
    let (verb, path) = case.title.split_once(' ').expect("a verb and a path");
    let mut document: Value = serde_yaml_ng::from_str(&case.document).unwrap_or_else(|e| panic!("{}: {e}", case.title));
    let at = target(path);
    let resource = registry
        .resource(&at.gvr)
        .unwrap_or_else(|| panic!("{path} is not served"));
    let done = match verb {
        "create" => {
            document["apiVersion"] = resource.kind.gvk.api_version().into();
            document["kind"] = resource.kind.gvk.kind.as_str().into();
            if document["metadata"]["name"].is_null() && document["metadata"]["generateName"].is_null() {
                document["metadata"]["name"] = "a".into();
            }
            Shop(registry).create(path, document).await
        }
        "change" => Shop(registry).patch(path, PatchKind::Merge, document).await,
        _ => panic!("{verb} is not a verb of cases"),
    };
    match done {
        Err(Failure::Invalid { causes, .. }) => causes.iter().fold(String::new(), |mut all, cause| {
            let _ = writeln!(all, "{} {cause}", cause.reason.as_str());
            all
        }),
        Err(failure) => format!("{failure}\n"),
        Ok(made) => {
            let row: Vec<String> = resource
                .table(&made, registry.now())
                .iter()
                .map(crate::table::plain)
                .collect();
            let mut value = made.value();
            let uid = made.uid.0.to_string();
            let meta = value["metadata"].as_object_mut().expect("metadata");
            for key in [
                "uid",
                "resourceVersion",
                "managedFields",
                "creationTimestamp",
                "name",
                "namespace",
            ] {
                meta.remove(key);
            }
            if meta.is_empty() {
                value.as_object_mut().expect("an object").remove("metadata");
            }
            if verb == "change" {
                // What a change leaves as it was stands above.
                let generation = value["metadata"]["generation"].clone();
                value = match at.subresource.as_str() {
                    "" => json!({"generation": generation}),
                    _ => json!({"generation": generation, "status": value["status"]}),
                };
            } else {
                for key in ["apiVersion", "kind"] {
                    value.as_object_mut().expect("an object").remove(key);
                }
            }
            let shown = serde_yaml_ng::to_string(&value)
                .expect("JSON is YAML")
                .replace(&uid, "UID");
            format!("{}\n{shown}", row.join(" | ").trim_end())
        }
    }
}

#[tokio::test]
async fn every_kind_answers_as_it_was_kept() {
    let folder = format!("{}/cases/kinds", env!("CARGO_MANIFEST_DIR"));
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|f| f.unwrap().path()).collect();
    files.sort();
    let mut differ = Vec::new();
    for path in files {
        let kept = std::fs::read_to_string(&path).unwrap();
        let (mut found, all) = cases(&kept);
        let registry = open().await;
        for case in &all {
            let answer = answer(&registry, case).await;
            write!(
                found,
                "> {}\n{}----\n{answer}\n",
                case.title,
                case.document.trim_start_matches('\n')
            )
            .unwrap();
        }
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&path, &found).unwrap();
        } else if kept != found {
            let first = kept.lines().zip(found.lines()).find(|(kept, found)| kept != found);
            differ.push(format!("{}: {first:?}", path.display()));
        }
    }
    assert!(differ.is_empty(), "not as it was kept (BLESS=1 rewrites): {differ:#?}");
}

/// A file for every kind that can be made.
#[test]
fn every_kind_has_cases() {
    let folder = format!("{}/cases/kinds", env!("CARGO_MANIFEST_DIR"));
    let missing: Vec<String> = crate::resources::all()
        .iter()
        .map(|r| r.kind.gvk.kind.to_lowercase().to_string())
        .filter(|kind| !std::path::Path::new(&format!("{folder}/{kind}.txt")).exists())
        .collect();
    assert!(missing.is_empty(), "no cases for {missing:?}");
}

/// The kinds that every 1.36 server has: those of the table that are not alpha or beta and have lists.
#[test]
fn every_stable_kind_of_the_table_is_served() {
    let table = schema::Table::builtin();
    let all = crate::resources::all();
    let stable = |version: &str| version.starts_with('v') && version[1..].bytes().all(|b| b.is_ascii_digit());
    // Deprecated since 1.19 and no object: its list is a probe of components that no longer listen.
    let without = ["ComponentStatus"];
    let missing: Vec<String> = table
        .kinds()
        .filter(|gvk| stable(&gvk.version) && !without.contains(&gvk.kind.as_str()))
        // Forms that other kinds are shown in are no kinds of their own.
        .filter(|gvk| gvk.group != "meta.k8s.io")
        .filter(|gvk| {
            let list = model::Gvk::new(&gvk.group, &gvk.version, &format!("{}List", gvk.kind));
            let is_object = table.schema(gvk).is_some_and(|s| s.root().under("metadata").is_some());
            is_object && table.schema(&list).is_some() && !all.iter().any(|r| r.kind.gvk == **gvk)
        })
        .map(ToString::to_string)
        .collect();
    assert!(missing.is_empty(), "of the table and not served: {missing:?}");
}
