//! From what the kernel holds to what it should hold, as one `nft -f` script. The kernel takes it whole or not at all.

use std::fmt::Write as _;

use super::ruleset::{Chain, Ruleset, Set, TABLE};

/// Replaces whatever stands under our table's name. What affinity sets have learned is lost.
pub fn rewrite(family: &str, next: &Ruleset) -> String {
    // Adding first makes the delete succeed also where there was no table.
    let mut script = format!("add table {family} {TABLE}\ndelete table {family} {TABLE}\nadd table {family} {TABLE}\n");
    script.push_str(&update(family, &Ruleset::default(), next));
    script
}

/// Changes only what differs; empty when nothing does.
///
/// The order matters: things must exist before they are named, and must no longer be named before they go.
pub fn update(family: &str, before: &Ruleset, next: &Ruleset) -> String {
    let mut script = Script {
        family,
        text: String::new(),
    };
    // A set whose type or timeout changes is a new set under an old name: the chain that names it is written anew too.
    let remade = |name: &str, set: &Set| before.sets.get(name).is_some_and(|old| old.spec != set.spec);
    let flushed = |name: &str| {
        let naming = |rules: &[String]| {
            next.sets
                .iter()
                .any(|(set, spec)| remade(set, spec) && rules.iter().any(|rule| rule.contains(&format!("@{set} "))))
        };
        before.chains.get(name).is_some_and(|old| naming(&old.rules))
    };
    let changed: Vec<(&String, &Chain)> = next
        .chains
        .iter()
        .filter(|(name, chain)| before.chains.get(*name) != Some(chain) || flushed(name))
        .collect();
    let new = |name: &str| !before.chains.contains_key(name);

    for (name, chain) in &changed {
        match (new(name), chain.hook) {
            (true, "") => script.line(format_args!("add chain"), name, ""),
            (true, hook) => script.line(format_args!("add chain"), name, &format!("{{ {hook} }}")),
            (false, _) => script.line(format_args!("flush chain"), name, ""),
        }
    }
    // Of chains that go, the rules go first: they may name each other and sets that go too.
    let gone = || before.chains.keys().filter(|name| !next.chains.contains_key(*name));
    for name in gone() {
        script.line(format_args!("flush chain"), name, "");
    }
    for (name, old) in &before.sets {
        match next.sets.get(name) {
            Some(set) if set.spec == old.spec => {
                let stale = old
                    .elements
                    .iter()
                    .filter(|(key, verdict)| set.elements.get(*key) != Some(*verdict));
                script.elements("delete element", name, stale.map(|(key, _)| key.clone()));
            }
            Some(_) | None => script.line(format_args!("delete {}", kind(old)), name, ""),
        }
    }
    for (name, set) in &next.sets {
        if before.sets.get(name).is_none_or(|old| old.spec != set.spec) {
            script.line(format_args!("add {}", kind(set)), name, &format!("{{ {} }}", set.spec));
        }
    }
    for (name, chain) in &changed {
        for rule in &chain.rules {
            script.line(format_args!("add rule"), name, rule);
        }
    }
    for (name, set) in &next.sets {
        let old = before.sets.get(name).filter(|old| old.spec == set.spec);
        let fresh = set
            .elements
            .iter()
            .filter(|(key, verdict)| old.and_then(|old| old.elements.get(*key)) != Some(*verdict));
        script.elements(
            "add element",
            name,
            fresh.map(|(key, verdict)| match verdict.is_empty() {
                true => key.clone(),
                false => format!("{key} : {verdict}"),
            }),
        );
    }
    for name in gone() {
        script.line(format_args!("delete chain"), name, "");
    }
    script.text
}

/// Removes our table, if it is there.
pub fn remove(family: &str) -> String {
    format!("add table {family} {TABLE}\ndelete table {family} {TABLE}\n")
}

fn kind(set: &Set) -> &'static str {
    if set.is_map { "map" } else { "set" }
}

struct Script<'a> {
    family: &'a str,
    text: String,
}

impl Script<'_> {
    fn line(&mut self, verb: std::fmt::Arguments<'_>, name: &str, rest: &str) {
        let gap = if rest.is_empty() { "" } else { " " };
        writeln!(self.text, "{verb} {} {TABLE} {name}{gap}{rest}", self.family).expect("a String takes every write");
    }

    /// Many to a line: nft's time goes with commands, and lines of thousands are hard to read.
    fn elements(&mut self, verb: &str, set: &str, elements: impl Iterator<Item = String>) {
        let elements: Vec<String> = elements.collect();
        for some in elements.chunks(16) {
            self.line(format_args!("{verb}"), set, &format!("{{ {} }}", some.join(" , ")));
        }
    }
}
