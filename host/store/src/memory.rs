//! The engine that forgets everything when it is dropped: for tests, trials, and measuring what durability costs.

use std::io;

use crate::engine::{History, LocalStore};
use crate::tree::Tree;

/// A store that lives as long as its process.
///
/// # Errors
/// When the system gives no thread.
pub fn open(history: History) -> io::Result<LocalStore> {
    LocalStore::start(Tree::new(), Vec::new(), None, history)
}
