//! Whatever text arrives as an expression, it is compiled and run within its budget, or refused: no panic, no endless loop.
//!
//! Sentences begin as those of `cases.json` and are then damaged or put together, which goes deeper than noise does.

use std::sync::LazyLock;

use cel::{CALL_LIMIT, Env, Val};
use proptest::prelude::*;
use serde_json::{Value, json};

static SENTENCES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let cases: Vec<Value> = serde_json::from_str(include_str!("cases.json")).expect("the cases are JSON");
    let rules = cases.iter().filter_map(|case| case["rule"].as_str().map(str::to_owned));
    rules.collect()
});

const ODD: [&str; 24] = [
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ".",
    ",",
    "?",
    ":",
    "!",
    "-",
    "&&",
    "||",
    " in ",
    "\"",
    "'",
    "\\",
    "0x",
    "9223372036854775808",
    "1e400",
    "self.all(x, ",
    "r'[",
    "b'\\xff'",
];

fn sentence() -> impl Strategy<Value = String> {
    let one = || any::<prop::sample::Index>().prop_map(|at| at.get(&SENTENCES).clone());
    let joined = (
        one(),
        prop::sample::select(vec![" && ", " + ", " == ", " ? ", " : ", ", "]),
        one(),
    )
        .prop_map(|(a, with, b)| format!("{a}{with}{b}"));
    let hurt = (
        one(),
        any::<prop::sample::Index>(),
        0..12usize,
        prop::sample::select(ODD.as_slice()),
    )
        .prop_map(|(text, at, cut, odd)| {
            let letters: Vec<char> = text.chars().collect();
            let at = at.index(letters.len() + 1);
            let rest = letters.iter().skip(at + cut);
            letters[..at]
                .iter()
                .copied()
                .chain(odd.chars())
                .chain(rest.copied())
                .collect()
        });
    prop_oneof![4 => hurt, 1 => joined, 1 => ".{0,60}"]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn sentences_are_understood_or_refused(text in sentence()) {
        let env = Env::default().dynamic("self");
        let Ok(program) = env.compile(&text) else { return Ok(()) };
        let estimate = env.estimate(&program);
        prop_assert!(estimate.least <= estimate.most, "{text}");
        let own = json!({"name": "hello", "list": [1, 2, 3], "labels": {"a": "b"}, "replicas": 3, "min": 1, "any": {"x": null}});
        for limit in [0, 10, CALL_LIMIT] {
            let (result, cost) = program.run(&[("self", Val::json(&own))], None, limit);
            if let Err(fault) = &result {
                prop_assert!(!fault.message.is_empty(), "{text}");
            } else {
                prop_assert!(cost <= limit, "{text} cost {cost} of {limit}");
            }
        }
        let first = program.run(&[("self", Val::json(&own))], None, CALL_LIMIT);
        let second = program.run(&[("self", Val::json(&own))], None, CALL_LIMIT);
        prop_assert_eq!(first.1, second.1, "{} costs the same each time", text);
        prop_assert_eq!(first.0.is_ok(), second.0.is_ok(), "{}", text);
    }
}
