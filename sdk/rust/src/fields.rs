//! Typed rows: a struct that says which fields it is made of.

use std::collections::BTreeMap;

use crate::columns::{Cell, Row};
use crate::{Instant, Value};

/// A row as a Rust value. Derive it, with a path at each member:
///
/// ```ignore
/// #[derive(sdk::Fields)]
/// struct Pod {
///     #[at(".metadata.name")]
///     name: String,
///     #[at(".spec.priority")]
///     priority: Option<i64>,
/// }
/// ```
pub trait Fields: Sized {
    /// One space between two.
    const PATHS: &'static str;

    /// # Errors
    /// Which field has not the form it must have.
    fn read(row: Row<'_>) -> Result<Self, String>;
}

/// Nothing is asked but whether the object is there.
impl Fields for () {
    const PATHS: &'static str = ".metadata.uid";

    fn read(_: Row<'_>) -> Result<Self, String> {
        Ok(())
    }
}

/// A member of a [`Fields`] struct. `Err` says what the cell must be.
pub trait FromCell: Sized {
    /// # Errors
    /// What was expected instead, for a message.
    fn from_cell(cell: Cell<'_>) -> Result<Self, &'static str>;
}

impl FromCell for String {
    /// Empty where there is none, as Kubernetes has it.
    fn from_cell(cell: Cell<'_>) -> Result<Self, &'static str> {
        match cell {
            Cell::Str(text) => Ok(text.to_owned()),
            Cell::Absent | Cell::Null => Ok(String::new()),
            _ => Err("text"),
        }
    }
}

impl FromCell for bool {
    /// `false` where there is none.
    fn from_cell(cell: Cell<'_>) -> Result<Self, &'static str> {
        match cell {
            Cell::Bool(is) => Ok(is),
            Cell::Absent | Cell::Null => Ok(false),
            _ => Err("true or false"),
        }
    }
}

macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl FromCell for $number {
            /// 0 where there is none.
            fn from_cell(cell: Cell<'_>) -> Result<Self, &'static str> {
                match cell {
                    Cell::I64(number) => number.try_into().map_err(|_| "a number in range"),
                    Cell::Absent | Cell::Null => Ok(0),
                    _ => Err("a whole number"),
                }
            }
        }
    )*};
}

numbers!(i64, i32, u64, u32, u16);

impl FromCell for Instant {
    fn from_cell(cell: Cell<'_>) -> Result<Self, &'static str> {
        Instant::parse(cell.str()).ok_or("a time as RFC 3339 writes it")
    }
}

impl FromCell for Value {
    /// `null` where there is none.
    fn from_cell(cell: Cell<'_>) -> Result<Self, &'static str> {
        Ok(match cell {
            Cell::Absent | Cell::Null => Value::Null,
            Cell::Bool(is) => is.into(),
            Cell::I64(number) => number.into(),
            Cell::F64(number) => number.into(),
            Cell::Str(text) => text.into(),
            Cell::Json(json) => serde_json::from_str(json).map_err(|_| "JSON")?,
        })
    }
}

/// Labels, annotations, node selectors.
impl FromCell for BTreeMap<String, String> {
    fn from_cell(cell: Cell<'_>) -> Result<Self, &'static str> {
        match cell {
            Cell::Json(json) => serde_json::from_str(json).map_err(|_| "a map of texts"),
            Cell::Absent | Cell::Null => Ok(BTreeMap::new()),
            _ => Err("a map of texts"),
        }
    }
}

impl FromCell for Vec<String> {
    fn from_cell(cell: Cell<'_>) -> Result<Self, &'static str> {
        match cell {
            Cell::Json(json) => serde_json::from_str(json).map_err(|_| "a list of texts"),
            Cell::Absent | Cell::Null => Ok(Vec::new()),
            _ => Err("a list of texts"),
        }
    }
}

impl<T: FromCell> FromCell for Option<T> {
    fn from_cell(cell: Cell<'_>) -> Result<Self, &'static str> {
        if cell.is_none() {
            Ok(None)
        } else {
            T::from_cell(cell).map(Some)
        }
    }
}

/// What the derive calls for each member.
#[doc(hidden)]
pub fn member<T: FromCell>(row: Row<'_>, column: usize, path: &str) -> Result<T, String> {
    T::from_cell(row.cell(column)).map_err(|must| format!("{path} must be {must}"))
}
