//! Label selectors: which objects are meant, by their labels.
//!
//! The text form and its complaints are apimachinery's (`labels.Parse`); the object form is `metav1.LabelSelector`.

use std::fmt;
use std::str::FromStr;

use compact_str::CompactString;
use serde_json::Value;
use smallvec::SmallVec;

use crate::{Failure, Labels, text};

/// All requirements must hold. None at all: everything matches.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Selector {
    requirements: Box<[Requirement]>,
    /// Matches no object, whatever the requirements (a selector that was not given).
    nothing: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Requirement {
    pub key: CompactString,
    pub operator: Operator,
    /// Sorted. One for the comparisons, none for the two about presence.
    pub values: SmallVec<[CompactString; 1]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operator {
    Equals,
    DoubleEquals,
    NotEquals,
    In,
    NotIn,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

impl Selector {
    pub fn everything() -> Self {
        Self {
            requirements: Box::default(),
            nothing: false,
        }
    }

    pub fn nothing() -> Self {
        Self {
            requirements: Box::default(),
            nothing: true,
        }
    }

    /// `a=b,c!=d,e in (x,y),!f,g,h>3`: the text of `labelSelector=` in a URL.
    ///
    /// # Errors
    /// [`Failure::BadRequest`] in apimachinery's words.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let requirements = Parser::new(text).parse().map_err(Failure::BadRequest)?;
        Ok(Self::of(requirements))
    }

    /// From a `metav1.LabelSelector` in JSON. `null` (not given) matches nothing, `{}` everything.
    ///
    /// # Errors
    /// [`Failure::BadRequest`] for an operator, key or value that does not exist.
    pub fn from_json(selector: &Value) -> Result<Self, Failure> {
        if selector.is_null() {
            return Ok(Self::nothing());
        }
        let mut requirements = Vec::new();
        for (key, value) in selector
            .get("matchLabels")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            let values = vec![value.as_str().unwrap_or_default().into()];
            requirements.push(Requirement::new(key, Operator::Equals, values).map_err(Failure::BadRequest)?);
        }
        for expression in selector
            .get("matchExpressions")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            let word = |name: &str| expression.get(name).and_then(Value::as_str).unwrap_or_default();
            let operator = match word("operator") {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => {
                    return Err(Failure::BadRequest(format!(
                        "{other:?} is not a valid label selector operator"
                    )));
                }
            };
            let values = expression.get("values").and_then(Value::as_array).into_iter().flatten();
            let values = values.filter_map(|v| v.as_str().map(CompactString::from)).collect();
            requirements.push(Requirement::new(word("key"), operator, values).map_err(Failure::BadRequest)?);
        }
        Ok(Self::of(requirements))
    }

    /// Every pair must be there: a Service's `spec.selector`, a `matchLabels` alone.
    pub fn of_labels(labels: &Labels) -> Self {
        let equal = |(key, value): (&str, &str)| Requirement {
            key: key.into(),
            operator: Operator::Equals,
            values: [value.into()].into_iter().collect(),
        };
        Self::of(labels.iter().map(equal).collect())
    }

    fn of(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Self {
            requirements: requirements.into(),
            nothing: false,
        }
    }

    pub fn matches(&self, labels: &Labels) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(labels.get(&r.key)))
    }

    /// Matches all there is, so a reader may leave it out.
    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    pub fn is_nothing(&self) -> bool {
        self.nothing
    }

    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// The value that `key` must have, if there is only one: lets an index answer.
    pub fn exact(&self, key: &str) -> Option<&str> {
        self.requirements
            .iter()
            .find_map(|r| match (r.key == key, r.operator, r.values.as_slice()) {
                (true, Operator::Equals | Operator::DoubleEquals | Operator::In, [one]) => Some(one.as_str()),
                _ => None,
            })
    }
}

impl FromStr for Selector {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        Self::parse(text)
    }
}

impl fmt::Display for Selector {
    /// The text form; parses back to an equal selector, except [`Selector::nothing`], which has none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, requirement) in self.requirements.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            requirement.fmt(f)?;
        }
        Ok(())
    }
}

impl Requirement {
    /// # Errors
    /// What is wrong with the key, the values or their number, as a sentence.
    pub fn new(key: &str, operator: Operator, mut values: Vec<CompactString>) -> Result<Self, String> {
        let mut wrong = Vec::new();
        if let Some(complaint) = key_complaint("key", key) {
            wrong.push(complaint);
        }
        let shown: Vec<String> = values.iter().map(|v| format!("{:?}", v.as_str())).collect();
        let shown = format!("[{}]", shown.join(","));
        let count = match operator {
            Operator::In | Operator::NotIn if values.is_empty() => {
                "for 'in', 'notin' operators, values set can't be empty"
            }
            Operator::Equals | Operator::DoubleEquals | Operator::NotEquals if values.len() != 1 => {
                "exact-match compatibility requires one single value"
            }
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
                "values set must be empty for exists and does not exist"
            }
            Operator::GreaterThan | Operator::LessThan if values.len() != 1 => {
                "for 'Gt', 'Lt' operators, exactly one value is required"
            }
            _ => "",
        };
        if !count.is_empty() {
            wrong.push(format!("values: Invalid value: {shown}: {count}"));
        }
        for (i, value) in values.iter().enumerate() {
            if matches!(operator, Operator::GreaterThan | Operator::LessThan) && value.parse::<i64>().is_err() {
                let says = "for 'Gt', 'Lt' operators, the value must be an integer";
                wrong.push(format!("values[{i}]: Invalid value: {:?}: {says}", value.as_str()));
            }
            let complaints = text::label_value(value);
            if !complaints.is_empty() {
                wrong.push(format!(
                    "values[{i}][{key}]: Invalid value: {:?}: {}",
                    value.as_str(),
                    complaints.join("; ")
                ));
            }
        }
        match wrong.len() {
            0 => {
                values.sort();
                values.dedup();
                Ok(Self {
                    key: key.into(),
                    operator,
                    values: values.into_iter().collect(),
                })
            }
            1 => Err(wrong.remove(0)),
            _ => Err(format!("[{}]", wrong.join(", "))),
        }
    }

    /// `value`: what the object has under the key, if it has the key.
    pub fn matches(&self, value: Option<&str>) -> bool {
        let listed = |value: &str| self.values.iter().any(|v| v == value);
        match self.operator {
            Operator::In | Operator::Equals | Operator::DoubleEquals => value.is_some_and(listed),
            Operator::NotIn | Operator::NotEquals => !value.is_some_and(listed),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan | Operator::LessThan => {
                let number = |text: &str| text.parse::<i64>().ok();
                match (value.and_then(number), self.values.first().and_then(|v| number(v))) {
                    (Some(has), Some(bound)) if self.operator == Operator::GreaterThan => has > bound,
                    (Some(has), Some(bound)) => has < bound,
                    _ => false,
                }
            }
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = self.values.join(",");
        let key = &self.key;
        match self.operator {
            Operator::Exists => write!(f, "{key}"),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::Equals => write!(f, "{key}={values}"),
            Operator::DoubleEquals => write!(f, "{key}=={values}"),
            Operator::NotEquals => write!(f, "{key}!={values}"),
            Operator::GreaterThan => write!(f, "{key}>{values}"),
            Operator::LessThan => write!(f, "{key}<{values}"),
            Operator::In => write!(f, "{key} in ({values})"),
            Operator::NotIn => write!(f, "{key} notin ({values})"),
        }
    }
}

fn key_complaint(field: &str, key: &str) -> Option<String> {
    let complaints = text::qualified_name(key);
    (!complaints.is_empty()).then(|| format!("{field}: Invalid value: {key:?}: {}", complaints.join("; ")))
}

/// Only `ident` carries what was written; for the others the text says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Word,
    In,
    NotIn,
    Comma,
    Not,
    Open,
    Close,
    Binary(Operator),
    Error,
    End,
}

struct Parser {
    tokens: Vec<(Token, String)>,
    at: usize,
}

impl Parser {
    fn new(text: &str) -> Self {
        Self {
            tokens: lex(text),
            at: 0,
        }
    }

    fn parse(mut self) -> Result<Vec<Requirement>, String> {
        let mut requirements = Vec::new();
        loop {
            match self.peek() {
                (Token::Word | Token::Not, _) => {
                    requirements.push(
                        self.requirement()
                            .map_err(|e| format!("unable to parse requirement: {e}"))?,
                    );
                    match self.take() {
                        (Token::End, _) => return Ok(requirements),
                        (Token::Comma, _) => match self.peek() {
                            (Token::Word | Token::Not, _) => {}
                            (_, found) => {
                                return Err(format!("found '{found}', expected: identifier after ','"));
                            }
                        },
                        (_, found) => {
                            return Err(format!("found '{found}', expected: ',' or 'end of string'"));
                        }
                    }
                }
                (Token::End, _) => return Ok(requirements),
                (_, found) => {
                    return Err(format!("found '{found}', expected: !, identifier, or 'end of string'"));
                }
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let mut absent = false;
        let mut token = self.take();
        if token.0 == Token::Not {
            absent = true;
            token = self.take();
        }
        let (Token::Word, key) = token else {
            return Err(format!("found '{}', expected: identifier", token.1));
        };
        if let Some(complaint) = key_complaint("<nil>", &key) {
            return Err(complaint);
        }
        if absent {
            return Requirement::new(&key, Operator::DoesNotExist, Vec::new());
        }
        if matches!(self.peek().0, Token::End | Token::Comma) {
            return Requirement::new(&key, Operator::Exists, Vec::new());
        }
        let (operator, found) = self.tokens[self.at].clone();
        self.at += 1;
        let (operator, values) = match operator {
            Token::In => (Operator::In, self.values()?),
            Token::NotIn => (Operator::NotIn, self.values()?),
            Token::Binary(operator) => (operator, vec![self.value()?]),
            _ => {
                return Err(format!("found '{found}', expected: in, notin, =, ==, !=, gt, lt"));
            }
        };
        Requirement::new(&key, operator, values)
    }

    fn value(&mut self) -> Result<CompactString, String> {
        if matches!(self.peek().0, Token::End | Token::Comma) {
            return Ok(CompactString::default());
        }
        match self.take() {
            (Token::Word, value) => Ok(value.into()),
            (_, found) => Err(format!("found '{found}', expected: identifier")),
        }
    }

    /// `(a,b)`; an empty place between commas or parentheses is the empty value.
    fn values(&mut self) -> Result<Vec<CompactString>, String> {
        match self.take() {
            (Token::Open, _) => {}
            (_, found) => return Err(format!("found '{found}' expected: '('")),
        }
        let mut values = Vec::new();
        loop {
            match self.take() {
                (Token::Word, value) => {
                    values.push(value.into());
                    match self.take() {
                        (Token::Close, _) => return Ok(values),
                        (Token::Comma, _) if self.peek().0 == Token::Close => {
                            values.push(CompactString::default());
                        }
                        (Token::Comma, _) => {}
                        (_, found) => return Err(format!("found '{found}', expected: ',' or ')'")),
                    }
                }
                (Token::Comma, _) => values.push(CompactString::default()),
                (Token::Close, _) => {
                    if values.is_empty() {
                        values.push(CompactString::default());
                    }
                    return Ok(values);
                }
                (_, found) if values.is_empty() => {
                    return Err(format!("found '{found}', expected: ',', ')' or identifier"));
                }
                (_, found) => return Err(format!("found '{found}', expected: ',', or identifier")),
            }
        }
    }

    /// The next token where a name or value may stand: there `in` and `notin` are words like others.
    fn peek(&self) -> (Token, &str) {
        let (token, text) = &self.tokens[self.at];
        let token = if matches!(token, Token::In | Token::NotIn) {
            Token::Word
        } else {
            *token
        };
        (token, text)
    }

    fn take(&mut self) -> (Token, String) {
        let (token, text) = self.peek();
        let taken = (token, text.to_owned());
        // The end is never passed, so that a parser that asks again is told the same.
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        taken
    }
}

fn lex(text: &str) -> Vec<(Token, String)> {
    let special = |c: char| matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<');
    let blank = |c: char| matches!(c, ' ' | '\t' | '\r' | '\n');
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches(blank);
        let Some(first) = rest.chars().next() else {
            tokens.push((Token::End, String::new()));
            return tokens;
        };
        let (token, length) = if special(first) {
            match rest {
                r if r.starts_with("==") => (Token::Binary(Operator::DoubleEquals), 2),
                r if r.starts_with("!=") => (Token::Binary(Operator::NotEquals), 2),
                _ => match first {
                    '=' => (Token::Binary(Operator::Equals), 1),
                    '>' => (Token::Binary(Operator::GreaterThan), 1),
                    '<' => (Token::Binary(Operator::LessThan), 1),
                    '!' => (Token::Not, 1),
                    '(' => (Token::Open, 1),
                    ')' => (Token::Close, 1),
                    ',' => (Token::Comma, 1),
                    _ => (Token::Error, 1),
                },
            }
        } else {
            let length = rest.find(|c| special(c) || blank(c)).unwrap_or(rest.len());
            let token = match &rest[..length] {
                "in" => Token::In,
                "notin" => Token::NotIn,
                _ => Token::Word,
            };
            (token, length)
        };
        tokens.push((token, rest[..length].to_owned()));
        rest = &rest[length..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn labels(text: &str) -> Labels {
        text.split(',').filter_map(|pair| pair.split_once('=')).collect()
    }

    #[test]
    fn selects_as_kubectl_users_expect() {
        for (selector, yes, no) in [
            ("a=b", "a=b,c=d", "a=c"),
            ("a==b", "a=b", "b=a"),
            ("a!=b", "c=d", "a=b"),
            ("a in (x, y)", "a=y", "a=z"),
            ("a notin (x,y)", "b=x", "a=x"),
            ("a,!b", "a=", "a=,b="),
            ("in=in", "in=in", "in=out"),
            ("a in (,x)", "a=", "a=y"),
            ("a>3,a<5", "a=4", "a=5"),
            ("a>3", "a=04", "a=x"),
            ("a=", "a=", "a=b"),
        ] {
            let parsed = Selector::parse(selector).unwrap();
            assert!(parsed.matches(&labels(yes)), "{selector} should match {yes}");
            assert!(!parsed.matches(&labels(no)), "{selector} should not match {no}");
            assert_eq!(Selector::parse(&parsed.to_string()).unwrap(), parsed, "{selector}");
        }
        assert!(Selector::parse("").unwrap().is_everything());
    }

    #[test]
    fn complains_in_apimachinerys_words() {
        for (selector, message) in [
            ("a=b,", "found '', expected: identifier after ','"),
            ("=b", "found '=', expected: !, identifier, or 'end of string'"),
            (
                "a b",
                "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt",
            ),
            ("a in x", "unable to parse requirement: found 'x' expected: '('"),
            ("a in (x", "unable to parse requirement: found '', expected: ',' or ')'"),
            ("a=b c", "found 'c', expected: ',' or 'end of string'"),
            ("a==(", "unable to parse requirement: found '(', expected: identifier"),
            (
                "a>x",
                "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value must be an integer",
            ),
            (
                "-a",
                "unable to parse requirement: <nil>: Invalid value: \"-a\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
            ),
        ] {
            assert_eq!(
                Selector::parse(selector).unwrap_err().to_string(),
                message,
                "{selector}"
            );
        }
    }

    #[test]
    fn reads_the_object_form() {
        let selector = json!({
            "matchLabels": {"app": "web"},
            "matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["b", "a"]}, {"key": "x", "operator": "DoesNotExist"}],
        });
        let selector = Selector::from_json(&selector).unwrap();
        assert_eq!(selector.to_string(), "app=web,tier notin (a,b),!x");
        assert_eq!(selector.exact("app"), Some("web"));
        assert!(Selector::from_json(&Value::Null).unwrap().is_nothing());
        assert!(Selector::from_json(&json!({})).unwrap().is_everything());
        let wrong = json!({"matchExpressions": [{"key": "a", "operator": "Is"}]});
        assert_eq!(
            Selector::from_json(&wrong).unwrap_err().to_string(),
            "\"Is\" is not a valid label selector operator"
        );
    }
}
