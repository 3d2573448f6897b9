//! Reading an object place by place, and noting what is wrong with it by its field.
//!
//! A kind's `validate` walks its documents with [`At`] in the order of its reference page; the messages are
//! kube-apiserver's (`pkg/apis/*/validation`, `field.Error`), because people search for them and clients match them.

use std::ops::RangeInclusive;

use model::{Cause, CauseReason, Quantity, text};
use serde_json::Value;

use crate::names::validate_labels;
use crate::table::{at, list_at, plain, text_at};

/// A place in an object: the value there, its path, and the list of what is wrong so far.
pub(crate) struct At<'v, 'w> {
    pub(crate) value: &'v Value,
    path: String,
    wrong: &'w mut Vec<Cause>,
}

impl<'v, 'w> At<'v, 'w> {
    pub(crate) fn new(value: &'v Value, path: impl Into<String>, wrong: &'w mut Vec<Cause>) -> Self {
        Self {
            value,
            path: path.into(),
            wrong,
        }
    }

    /// The member `key`, or null where there is none. Dots lead deeper.
    pub(crate) fn under<'s>(&'s mut self, key: &str) -> At<'v, 's> {
        let path = self.path_of(key);
        At::new(self.look(key), path, self.wrong)
    }

    fn look(&self, key: &str) -> &'v Value {
        match key {
            "" => self.value,
            key => at(self.value, key).unwrap_or(&Value::Null),
        }
    }

    /// Each element of the list at `key`.
    pub(crate) fn each(&mut self, key: &str, mut look: impl FnMut(At<'v, '_>)) {
        let path = self.path_of(key);
        for (i, value) in list_at(self.value, key).iter().enumerate() {
            look(At::new(value, format!("{path}[{i}]"), self.wrong));
        }
    }

    /// Each entry of the map at `key`.
    pub(crate) fn entries(&mut self, key: &str, mut look: impl FnMut(&'v str, At<'v, '_>)) {
        let path = self.path_of(key);
        let entries = at(self.value, key).and_then(Value::as_object).into_iter().flatten();
        for (name, value) in entries {
            look(name, At::new(value, format!("{path}[{name}]"), self.wrong));
        }
    }

    pub(crate) fn path_of(&self, key: &str) -> String {
        match (self.path.as_str(), key) {
            (path, "") => path.to_owned(),
            ("", key) => key.to_owned(),
            (path, key) => format!("{path}.{key}"),
        }
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        at(self.value, key).is_some_and(|v| !v.is_null())
    }

    pub(crate) fn text(&self, key: &str) -> &'v str {
        text_at(self.value, key)
    }

    pub(crate) fn int(&self, key: &str) -> Option<i64> {
        at(self.value, key).and_then(Value::as_i64)
    }

    pub(crate) fn list(&self, key: &str) -> &'v [Value] {
        list_at(self.value, key)
    }

    /// Runs a check that was written for a value, a path and a list.
    pub(crate) fn with(&mut self, key: &str, check: impl FnOnce(&'v Value, &str, &mut Vec<Cause>)) {
        let path = self.path_of(key);
        check(self.look(key), &path, self.wrong);
    }

    pub(crate) fn push(&mut self, cause: Cause) {
        self.wrong.push(cause);
    }

    pub(crate) fn required(&mut self, detail: &str) {
        self.wrong.push(Cause::required(self.path.clone(), detail));
    }

    pub(crate) fn invalid(&mut self, detail: &str) {
        self.wrong.push(Cause::invalid(self.path.clone(), self.value, detail));
    }

    pub(crate) fn forbidden(&mut self, detail: &str) {
        self.wrong.push(Cause::forbidden(self.path.clone(), detail));
    }

    pub(crate) fn duplicate(&mut self) {
        self.wrong.push(Cause::duplicate(self.path.clone(), self.value));
    }

    pub(crate) fn not_supported(&mut self, supported: &[&str]) {
        // Upstream shows an absent text as an empty one.
        let shown = if self.value.is_null() {
            "\"\"".to_owned()
        } else {
            self.value.to_string()
        };
        self.wrong
            .push(Cause::not_supported(self.path.clone(), shown, supported));
    }

    pub(crate) fn not_found(&mut self) {
        self.wrong.push(Cause {
            reason: CauseReason::NotFound,
            field: self.path.clone(),
            message: format!("Not found: {}", self.value),
        });
    }

    pub(crate) fn too_many(&mut self, have: usize, most: usize) {
        self.wrong.push(Cause {
            reason: CauseReason::TooMany,
            field: self.path.clone(),
            message: format!(
                "Too many: {have}: must have at most {most} item{}",
                if most == 1 { "" } else { "s" }
            ),
        });
    }

    pub(crate) fn too_long(&mut self, limit: usize) {
        self.wrong.push(Cause::too_long(self.path.clone(), limit));
    }

    /// The text itself must be well formed by `rule`.
    pub(crate) fn fits(&mut self, rule: impl FnOnce(&str) -> Vec<String>) {
        for complaint in rule(self.value.as_str().unwrap_or_default()) {
            self.invalid(&complaint);
        }
    }

    /// The text at `key` must not be empty. Tells whether it is there.
    pub(crate) fn need(&mut self, key: &str, detail: &str) -> bool {
        let there = !self.text(key).is_empty();
        if !there {
            self.under(key).required(detail);
        }
        there
    }

    /// The text at `key` must not be empty.
    pub(crate) fn must(&mut self, key: &str) {
        self.need(key, "");
    }

    /// The text at `key` must be there and well formed.
    pub(crate) fn need_fit(&mut self, key: &str, rule: impl FnOnce(&str) -> Vec<String>) {
        if self.need(key, "") {
            self.under(key).fits(rule);
        }
    }

    /// The text at `key`, if there is one, must be well formed.
    pub(crate) fn may_fit(&mut self, key: &str, rule: impl FnOnce(&str) -> Vec<String>) {
        if !self.text(key).is_empty() {
            self.under(key).fits(rule);
        }
    }

    /// The text at `key` must be there, and one of these, which are printed in this order.
    pub(crate) fn one_of(&mut self, key: &str, supported: &[&str]) {
        match self.text(key) {
            "" => self.under(key).required(""),
            value if supported.contains(&value) => {}
            _ => self.under(key).not_supported(supported),
        }
    }

    /// The same where an absent text is fine.
    pub(crate) fn may_be_one_of(&mut self, key: &str, supported: &[&str]) {
        if self.has(key) && !supported.contains(&self.text(key)) {
            self.under(key).not_supported(supported);
        }
    }

    pub(crate) fn in_range(&mut self, key: &str, range: RangeInclusive<i64>) {
        if self.int(key).is_some_and(|n| !range.contains(&n)) {
            let says = format!("must be between {} and {}, inclusive", range.start(), range.end());
            self.under(key).invalid(&says);
        }
    }

    pub(crate) fn at_least(&mut self, key: &str, least: i64) {
        if self.int(key).is_some_and(|n| n < least) {
            let says = format!("must be greater than or equal to {least}");
            self.under(key).invalid(&says);
        }
    }

    /// A port that must be given.
    pub(crate) fn port(&mut self, key: &str) {
        let number = self.int(key).unwrap_or(0);
        if !(1..=65535).contains(&number) {
            let says = "must be between 1 and 65535, inclusive";
            self.push(Cause::invalid(self.path_of(key), number, says));
        }
    }

    pub(crate) fn labels(&mut self, key: &str) {
        self.with(key, |labels, path, wrong| validate_labels(Some(labels), path, wrong));
    }

    /// A `metav1.LabelSelector`.
    pub(crate) fn selector(&mut self, key: &str) {
        let mut selector = self.under(key);
        selector.labels("matchLabels");
        selector.each("matchExpressions", |mut rule| {
            match rule.text("operator") {
                "In" | "NotIn" if rule.list("values").is_empty() => {
                    let says = "must be specified when `operator` is 'In' or 'NotIn'";
                    rule.under("values").required(says);
                }
                "Exists" | "DoesNotExist" if !rule.list("values").is_empty() => {
                    let says = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                    rule.under("values").forbidden(says);
                }
                "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
                _ => rule.under("operator").invalid("not a valid selector operator"),
            }
            rule.under("key").fits(text::qualified_name);
            rule.each("values", |mut value| value.fits(text::label_value));
        });
    }

    /// The quantity here, or a complaint.
    pub(crate) fn quantity(&mut self) -> Option<Quantity> {
        match Quantity::parse(&plain(self.value)) {
            Ok(quantity) => Some(quantity),
            Err(failure) => {
                self.invalid(&failure.to_string());
                None
            }
        }
    }

    pub(crate) fn must_be_quantity(&mut self) {
        self.quantity();
    }

    /// A quantity here that is not below zero.
    pub(crate) fn quantity_not_negative(&mut self) {
        if self.quantity().is_some_and(|q| q < Quantity::default()) {
            self.invalid("must be greater than or equal to 0");
        }
    }

    /// What stands at `key` may not differ from what stands there in `old`.
    pub(crate) fn immutable(&mut self, key: &str, old: &Value) {
        if at(self.value, key).unwrap_or(&Value::Null) != at(old, key).unwrap_or(&Value::Null) {
            self.under(key).invalid("field is immutable");
        }
    }

    /// A number or a percentage that is not below zero: `3`, `25%`.
    pub(crate) fn count_or_percent(&mut self, key: &str) {
        let mut place = self.under(key);
        match place.value {
            Value::Number(n) if n.as_i64().is_some_and(|n| n < 0) => {
                place.invalid("must be greater than or equal to 0");
            }
            Value::String(text) if percent(text).is_none() => place.invalid(
                "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')",
            ),
            _ => {}
        }
    }

    /// The same, and a percentage of at most a hundred.
    pub(crate) fn count_or_share(&mut self, key: &str) {
        self.count_or_percent(key);
        let mut place = self.under(key);
        if place.value.as_str().and_then(percent).is_some_and(|n| n > 100) {
            place.invalid("must not be greater than 100%");
        }
    }
}

/// `25%` is 25.
pub(crate) fn percent(text: &str) -> Option<u64> {
    let digits = text.strip_suffix('%')?;
    (!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
        .then(|| digits.parse().ok())
        .flatten()
}
