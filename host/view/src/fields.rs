//! Field texts as plugins write them, parsed once: several paths with spaces between.

use std::sync::Arc;

use model::{Failure, FieldPath, FieldSet, FieldValue, Object};

/// The parsed form of one `fields` text.
#[derive(Debug)]
pub struct Wanted {
    pub text: Arc<str>,
    set: FieldSet,
}

/// Values that outlive the object they were read from.
pub(crate) type Row = Box<[FieldValue<'static>]>;

impl Wanted {
    /// # Errors
    /// [`Failure::BadRequest`] that names the path and the place in it.
    pub fn parse(text: &str) -> Result<Arc<Self>, Failure> {
        let paths = words(text)
            .into_iter()
            .map(FieldPath::parse)
            .collect::<Result<Vec<_>, _>>()?;
        if paths.len() > 256 {
            return Err(Failure::BadRequest(format!(
                "{} fields are wanted in one read; 256 is the most",
                paths.len()
            )));
        }
        Ok(Arc::new(Self {
            text: text.into(),
            set: FieldSet::new(paths),
        }))
    }

    pub fn columns(&self) -> usize {
        self.set.paths().len()
    }

    pub fn paths(&self) -> &[FieldPath] {
        self.set.paths()
    }

    pub fn row<'a>(&self, object: &'a Object) -> Vec<FieldValue<'a>> {
        self.read(&object.json)
    }

    /// The values in a document that is not an object of the cluster yet.
    pub fn read<'a>(&self, json: &'a [u8]) -> Vec<FieldValue<'a>> {
        self.set.read(json)
    }

    pub(crate) fn owned(&self, object: &Object) -> Row {
        self.row(object).into_iter().map(FieldValue::into_owned).collect()
    }

    /// Whether a reader of these fields sees no difference.
    pub(crate) fn same(&self, a: &Object, b: &Object) -> bool {
        (a.version == b.version && a.uid == b.uid) || self.row(a) == self.row(b)
    }
}

/// Splits at spaces that are not inside a quoted text.
pub(crate) fn words(text: &str) -> Vec<&str> {
    let (mut quoted, mut escaped) = (false, false);
    let parts = text.split(move |c| {
        let quote = c == '"' && !escaped;
        escaped = quoted && c == '\\' && !escaped;
        quoted ^= quote;
        c == ' ' && !quoted
    });
    parts.filter(|part| !part.is_empty()).collect()
}

/// The texts that a value reads as where it is compared or indexed: one for a scalar, each element's for a `[*]` path.
pub(crate) fn texts(path: &FieldPath, value: &FieldValue<'_>) -> Vec<String> {
    if !path.is_many() || path.asks_existence() {
        return vec![value.to_text().into_owned()];
    }
    let FieldValue::Json(json) = value else {
        return Vec::new();
    };
    let list: Vec<serde_json::Value> = serde_json::from_slice(json).unwrap_or_default();
    let mut texts: Vec<String> = list.iter().map(|v| FieldValue::of(v).to_text().into_owned()).collect();
    texts.sort();
    texts.dedup();
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_keys_may_hold_spaces() {
        let text = r#".a  .b["x y"] .c["q\" z"]"#;
        assert_eq!(words(text), [".a", r#".b["x y"]"#, r#".c["q\" z"]"#]);
    }

    #[test]
    fn a_many_valued_path_reads_as_each_of_its_values() {
        let path = FieldPath::parse(".a[*]").unwrap();
        let value = FieldValue::Json(br#"["x",1,"x",null]"#.as_slice().into());
        assert_eq!(texts(&path, &value), ["", "1", "x"]);
        assert!(texts(&path, &FieldValue::Absent).is_empty());
    }
}
