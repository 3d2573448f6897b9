//! Reads packed columns, the form in which rows of field values come from the host. Nothing is copied.
//!
//! The layout is written in the docs of `view::columns`, which packs them.

/// Rows × columns over the bytes they came in.
#[derive(Debug, Clone, Copy)]
pub struct Columns<'a> {
    bytes: &'a [u8],
    rows: usize,
    columns: usize,
}

/// One value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cell<'a> {
    Absent,
    Null,
    Bool(bool),
    I64(i64),
    F64(f64),
    Str(&'a str),
    /// An object or a list, as its JSON.
    Json(&'a str),
}

/// The bytes are not packed columns: host and SDK do not speak the same layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("these bytes are not packed columns in a layout this SDK knows; build the plugin with a newer SDK")
    }
}

impl std::error::Error for Malformed {}

impl<'a> Columns<'a> {
    /// Looks at the frame only; a cell that does not hold what its tag says reads as [`Cell::Absent`].
    ///
    /// # Errors
    /// [`Malformed`] unless the frame and all blocks lie inside `bytes`.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        if bytes.get(..4) != Some(b"col1") {
            return Err(Malformed);
        }
        let rows = number(bytes, 4).ok_or(Malformed)?;
        let columns = number(bytes, 8).ok_or(Malformed)?;
        let read = Self { bytes, rows, columns };
        let head = columns
            .checked_mul(4)
            .and_then(|n| n.checked_add(12))
            .ok_or(Malformed)?;
        if head > bytes.len() {
            return Err(Malformed);
        }
        for column in 0..columns {
            let data = read
                .block(column)
                .and_then(|at| at.checked_add(rows.checked_mul(5)?))
                .ok_or(Malformed)?;
            if data > bytes.len() {
                return Err(Malformed);
            }
        }
        Ok(read)
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn columns(&self) -> usize {
        self.columns
    }

    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// [`Cell::Absent`] outside the rows and columns there are.
    pub fn cell(&self, row: usize, column: usize) -> Cell<'a> {
        if row >= self.rows || column >= self.columns {
            return Cell::Absent;
        }
        self.read(row, column).unwrap_or(Cell::Absent)
    }

    pub fn iter(&self) -> impl Iterator<Item = Row<'a>> + use<'a> {
        let of = *self;
        (0..of.rows).map(move |row| Row { of, row, skipped: 0 })
    }

    pub fn row(&self, row: usize) -> Row<'a> {
        Row {
            of: *self,
            row,
            skipped: 0,
        }
    }

    fn block(&self, column: usize) -> Option<usize> {
        number(self.bytes, 12 + 4 * column)
    }

    fn read(&self, row: usize, column: usize) -> Option<Cell<'a>> {
        let block = self.block(column)?;
        let ends = block + self.rows;
        let data = ends + 4 * self.rows;
        let start = if row == 0 {
            0
        } else {
            number(self.bytes, ends + 4 * (row - 1))?
        };
        let end = number(self.bytes, ends + 4 * row)?;
        let value = self.bytes.get(data.checked_add(start)?..data.checked_add(end)?)?;
        Some(match self.bytes.get(block + row)? {
            1 => Cell::Null,
            2 => Cell::Bool(false),
            3 => Cell::Bool(true),
            4 => Cell::I64(i64::from_le_bytes(value.try_into().ok()?)),
            5 => Cell::F64(f64::from_le_bytes(value.try_into().ok()?)),
            6 => Cell::Str(std::str::from_utf8(value).ok()?),
            7 => Cell::Json(std::str::from_utf8(value).ok()?),
            _ => Cell::Absent,
        })
    }
}

fn number(bytes: &[u8], at: usize) -> Option<usize> {
    let four = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(four.try_into().ok()?) as usize)
}

/// One row of [`Columns`].
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    of: Columns<'a>,
    row: usize,
    /// Columns that others have read: where this row begins.
    skipped: usize,
}

impl<'a> Row<'a> {
    pub fn cell(&self, column: usize) -> Cell<'a> {
        self.of.cell(self.row, self.skipped + column)
    }

    /// The row without its first columns.
    #[must_use]
    pub fn skip(self, columns: usize) -> Self {
        Self {
            skipped: self.skipped + columns,
            ..self
        }
    }

    /// Text, or the empty one where there is none.
    pub fn str(&self, column: usize) -> &'a str {
        self.cell(column).str()
    }

    /// A whole number, if there is one.
    pub fn i64(&self, column: usize) -> Option<i64> {
        self.cell(column).i64()
    }

    /// `true` only where it says so.
    pub fn bool(&self, column: usize) -> bool {
        self.cell(column) == Cell::Bool(true)
    }

    /// The JSON of an object or list, or the empty text.
    pub fn json(&self, column: usize) -> &'a str {
        match self.cell(column) {
            Cell::Json(json) => json,
            _ => "",
        }
    }
}

impl<'a> Cell<'a> {
    pub fn str(self) -> &'a str {
        match self {
            Cell::Str(text) => text,
            _ => "",
        }
    }

    pub fn i64(self) -> Option<i64> {
        match self {
            Cell::I64(number) => Some(number),
            _ => None,
        }
    }

    /// Absent or null.
    pub fn is_none(self) -> bool {
        matches!(self, Cell::Absent | Cell::Null)
    }
}
