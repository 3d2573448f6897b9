//! Packed columns: how rows of field values cross to a plugin, as one block of bytes.
//!
//! ```text
//! all numbers little-endian, nothing aligned
//! 0   4  "col1"
//! 4   4  rows     u32
//! 8   4  columns  u32
//! 12  4 × columns    where each column's block begins, from the start of the bytes; blocks stand one after another
//!
//! a column's block
//!     rows × u8      tags: 0 absent, 1 null, 2 false, 3 true, 4 i64, 5 f64, 6 text (UTF-8), 7 JSON (UTF-8; an object or list)
//!     rows × u32     where the row's value ends in `data`; it begins where the one before it ends, the first at 0
//!     data           8 bytes for i64 and f64, the bytes themselves for text and JSON, none for the other tags
//! ```
//! Equal rows make equal bytes, so two answers are compared without decoding. `sdk::columns` is the decoder; a test takes
//! every value through both. 9 bytes a cell and its text: a row of three short texts is about 60 bytes.

use bytes::Bytes;
use model::FieldValue;

pub const MAGIC: [u8; 4] = *b"col1";

/// Rows being packed, column by column.
pub struct Packer {
    rows: u32,
    columns: Vec<Column>,
}

#[derive(Default)]
struct Column {
    tags: Vec<u8>,
    ends: Vec<u8>,
    data: Vec<u8>,
}

impl Packer {
    pub fn new(columns: usize) -> Self {
        Self {
            rows: 0,
            columns: (0..columns).map(|_| Column::default()).collect(),
        }
    }

    /// # Panics
    /// If the row has another number of cells than there are columns.
    pub fn row<'a>(&mut self, cells: impl IntoIterator<Item = &'a FieldValue<'a>>) {
        let mut cells = cells.into_iter();
        for column in &mut self.columns {
            column.push(cells.next().expect("a cell for every column"));
        }
        assert!(cells.next().is_none(), "a column for every cell");
        self.rows += 1;
    }

    pub fn rows(&self) -> usize {
        self.rows as usize
    }

    pub fn finish(self) -> Bytes {
        let head = 12 + 4 * self.columns.len();
        let size: usize = self.columns.iter().map(Column::size).sum();
        let mut out = Vec::with_capacity(head + size);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&self.rows.to_le_bytes());
        out.extend_from_slice(&(self.columns.len() as u32).to_le_bytes());
        let mut at = head;
        for column in &self.columns {
            out.extend_from_slice(&(at as u32).to_le_bytes());
            at += column.size();
        }
        for column in self.columns {
            out.extend_from_slice(&column.tags);
            out.extend_from_slice(&column.ends);
            out.extend_from_slice(&column.data);
        }
        out.into()
    }
}

impl Column {
    fn size(&self) -> usize {
        self.tags.len() + self.ends.len() + self.data.len()
    }

    fn push(&mut self, cell: &FieldValue<'_>) {
        let tag = match cell {
            FieldValue::Absent => 0,
            FieldValue::Null => 1,
            FieldValue::Bool(is) => 2 + u8::from(*is),
            FieldValue::I64(number) => {
                self.data.extend_from_slice(&number.to_le_bytes());
                4
            }
            FieldValue::F64(number) => {
                self.data.extend_from_slice(&number.to_le_bytes());
                5
            }
            FieldValue::Str(text) => {
                self.data.extend_from_slice(text.as_bytes());
                6
            }
            FieldValue::Json(json) => {
                self.data.extend_from_slice(json);
                7
            }
        };
        self.tags.push(tag);
        self.ends.extend_from_slice(&(self.data.len() as u32).to_le_bytes());
    }
}

/// One block from rows that are there already.
pub fn pack<'a>(columns: usize, rows: impl IntoIterator<Item = &'a [FieldValue<'a>]>) -> Bytes {
    let mut packer = Packer::new(columns);
    for row in rows {
        packer.row(row);
    }
    packer.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sdk_columns::{Cell, Columns};
    use model::FieldValue as V;
    use proptest::prelude::*;

    fn same(cell: Cell<'_>, value: &V<'_>) -> bool {
        match (cell, value) {
            (Cell::Absent, V::Absent) | (Cell::Null, V::Null) => true,
            (Cell::Bool(a), V::Bool(b)) => a == *b,
            (Cell::I64(a), V::I64(b)) => a == *b,
            (Cell::F64(a), V::F64(b)) => a.to_bits() == b.to_bits(),
            (Cell::Str(a), V::Str(b)) => a == b.as_ref(),
            (Cell::Json(a), V::Json(b)) => a.as_bytes() == b.as_ref(),
            _ => false,
        }
    }

    fn value() -> impl Strategy<Value = V<'static>> {
        prop_oneof![
            Just(V::Absent),
            Just(V::Null),
            any::<bool>().prop_map(V::Bool),
            any::<i64>().prop_map(V::I64),
            any::<f64>().prop_map(V::F64),
            ".{0,12}".prop_map(|s| V::Str(s.into())),
            ".{0,12}".prop_map(|s| V::Json(format!("[{s:?}]").into_bytes().into())),
        ]
    }

    proptest! {
        #[test]
        fn what_the_host_packs_the_guest_reads(columns in 0usize..4, cells in prop::collection::vec(value(), 0..24)) {
            let rows: Vec<&[V]> = if columns == 0 { Vec::new() } else { cells.chunks_exact(columns).collect() };
            let bytes = pack(columns, rows.iter().copied());
            let read = Columns::parse(&bytes).unwrap();
            prop_assert_eq!((read.rows(), read.columns()), (rows.len(), columns));
            for (r, row) in rows.iter().enumerate() {
                for (c, value) in row.iter().enumerate() {
                    prop_assert!(same(read.cell(r, c), value), "{r},{c}: {value:?}");
                }
            }
        }

        #[test]
        fn bytes_that_lie_are_refused_or_read_without_a_panic(cells in prop::collection::vec(value(), 6), at in 0usize..200, to: u8) {
            let mut bytes = pack(3, cells.chunks_exact(3)).to_vec();
            let at = at % bytes.len();
            bytes[at] = to;
            if let Ok(read) = Columns::parse(&bytes) {
                for r in 0..read.rows() {
                    for c in 0..read.columns() {
                        let _ = read.cell(r, c);
                    }
                }
            }
        }
    }
}
