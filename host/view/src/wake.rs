//! Who is to run again, and why.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use model::Object;

/// Told when an answer has changed. Called on the informer's task: put a note somewhere and return.
pub trait Wake: Send + Sync + 'static {
    /// An answer that `reader` got has changed, and snapshots taken from now on show it. Once after each
    /// [`crate::View::install`], however much changes before the next.
    fn wake(&self, reader: u64, why: Why);
}

/// The answer to "why did this run?".
#[derive(Clone)]
pub enum Why {
    /// This object changed in a way that this question shows.
    Changed {
        object: Arc<Object>,
        gone: bool,
        question: Arc<str>,
    },
    /// What this question shows changed while the call ran.
    Meanwhile(Arc<str>),
    /// `clock.reached` has another answer now.
    TimeCame(i64),
    /// Kinds came or went.
    Kinds,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Changed { object, gone, question } => {
                let what = if *gone { "went" } else { "changed" };
                write!(
                    f,
                    "{}/{} {what} at {}: {question}",
                    object.key, object.key.namespace, object.version
                )
            }
            Why::Meanwhile(question) => write!(f, "changed during the last run: {question}"),
            Why::TimeCame(at) => write!(f, "the time {at} came"),
            Why::Kinds => f.write_str("the kinds served changed"),
        }
    }
}

impl fmt::Debug for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One installed set of reads. Wakes once; the next install is a new one.
pub(crate) struct Reading {
    pub(crate) id: u64,
    reader: u64,
    sink: Arc<dyn Wake>,
    /// Has woken its reader, or was replaced.
    done: AtomicBool,
}

impl Reading {
    pub(crate) fn new(id: u64, reader: u64, sink: Arc<dyn Wake>) -> Arc<Self> {
        Arc::new(Self {
            id,
            reader,
            sink,
            done: AtomicBool::new(false),
        })
    }

    pub(crate) fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }

    /// It was replaced: whatever is still on the way to it comes to nothing.
    pub(crate) fn retire(&self) {
        self.done.store(true, Ordering::Release);
    }

    pub(crate) fn wake(&self, why: Why) {
        if !self.done.swap(true, Ordering::AcqRel) {
            self.sink.wake(self.reader, why);
        }
    }
}
