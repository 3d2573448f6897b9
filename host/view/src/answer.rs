//! Answers: one question, one frozen kind, the same bytes every time.

use std::sync::{Arc, LazyLock};

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::changes::Delta;
use crate::columns::Packer;
use crate::fields::Wanted;
use crate::order::Ranked;
use crate::question::{Form, Kept, Question, find};
use crate::slot::Frozen;

/// What an asker adds to a standing question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Asked {
    /// `find`: how many rows, 0 for all.
    First(u32),
    /// `changes`: after which cursor.
    Since(u64),
    Whole,
}

impl Asked {
    pub(crate) fn limit(self) -> u32 {
        match self {
            Asked::First(limit) => limit,
            Asked::Since(_) | Asked::Whole => 0,
        }
    }
}

/// The answer and, for a `find` that was cut off at its limit, the last row's place.
pub(crate) fn to(question: &Question, kept: &Kept, frozen: &Frozen, asked: Asked) -> (Bytes, Option<Ranked>) {
    match (&question.form, kept, asked) {
        (Form::Find { wanted, order }, Kept::Order(set), asked) => find(
            wanted,
            order,
            set.iter().map(|ranked| ranked.object.clone()),
            asked.limit(),
        ),
        (Form::Find { wanted, order }, _, asked) => {
            find(wanted, order, frozen.select(&question.chosen).cloned(), asked.limit())
        }
        (Form::Tally { by, sums }, Kept::Tally(tally), _) => (tally.pack(by, sums.as_deref()), None),
        (Form::Changes { wanted }, Kept::Log(log), asked) => {
            let tag = tag(question);
            let cursor = match asked {
                Asked::Since(cursor) if cursor != 0 && cursor >> SEQ_BITS == tag => Some(cursor & SEQ_MASK),
                _ => None,
            };
            let (at, complete, rows, gone) = log.since(wanted, cursor);
            (
                Delta {
                    cursor: tag << SEQ_BITS | (at & SEQ_MASK),
                    complete,
                    rows,
                    gone,
                }
                .pack(),
                None,
            )
        }
        (Form::Tally { .. } | Form::Changes { .. }, _, _) => unreachable!("kept by this question"),
    }
}

const SEQ_BITS: u32 = 40;
const SEQ_MASK: u64 = (1 << SEQ_BITS) - 1;

/// 24 bits that tell one question's cursors from another's, and from those of an earlier process.
fn tag(question: &Question) -> u64 {
    static PROCESS: LazyLock<ahash::RandomState> = LazyLock::new(ahash::RandomState::new);
    (PROCESS.hash_one(&question.ask) >> SEQ_BITS) | 1
}

/// No row, or one.
pub(crate) fn get(object: Option<&Arc<model::Object>>, wanted: &Wanted) -> Bytes {
    let mut packer = Packer::new(wanted.columns());
    if let Some(object) = object {
        packer.row(&wanted.row(object));
    }
    packer.finish()
}

impl Delta {
    /// Cursor, complete, length of the rows, rows, gone.
    pub(crate) fn pack(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(13 + self.rows.len() + self.gone.len());
        out.put_u64_le(self.cursor);
        out.put_u8(self.complete.into());
        out.put_u32_le(self.rows.len() as u32);
        out.put_slice(&self.rows);
        out.put_slice(&self.gone);
        out.freeze()
    }

    /// `None` if the bytes are no packed delta.
    pub(crate) fn unpack(mut bytes: Bytes) -> Option<Self> {
        if bytes.len() < 13 {
            return None;
        }
        let cursor = bytes.get_u64_le();
        let complete = bytes.get_u8() != 0;
        let length = bytes.get_u32_le() as usize;
        (length <= bytes.len()).then(|| Self {
            cursor,
            complete,
            rows: bytes.split_to(length),
            gone: bytes,
        })
    }
}
