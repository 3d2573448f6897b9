//! Where in a document a walk is, kept on the stack and written out only for complaints.

use std::fmt;

#[derive(Clone, Copy)]
pub(crate) enum Place<'p> {
    Root,
    Key(&'p Place<'p>, &'p str),
    /// Of a map, whose keys Go's errors do not name.
    Entry(&'p Place<'p>, &'p str),
    Index(&'p Place<'p>, usize),
}

impl<'p> Place<'p> {
    pub(crate) fn key(&'p self, key: &'p str) -> Place<'p> {
        Place::Key(self, key)
    }

    pub(crate) fn entry(&'p self, key: &'p str) -> Place<'p> {
        Place::Entry(self, key)
    }

    pub(crate) fn index(&'p self, at: usize) -> Place<'p> {
        Place::Index(self, at)
    }

    /// The struct members only, as Go's JSON errors name fields: `spec.containers.image`.
    pub(crate) fn members(&self) -> String {
        match self {
            Place::Root => String::new(),
            Place::Index(up, _) | Place::Entry(up, _) => up.members(),
            Place::Key(up, key) => {
                let up = up.members();
                if up.is_empty() {
                    (*key).to_owned()
                } else {
                    format!("{up}.{key}")
                }
            }
        }
    }
}

impl fmt::Display for Place<'_> {
    /// `spec.containers[0].image`; empty for the whole.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Root => Ok(()),
            Place::Key(Place::Root, key) | Place::Entry(Place::Root, key) => f.write_str(key),
            Place::Key(up, key) | Place::Entry(up, key) => write!(f, "{up}.{key}"),
            Place::Index(up, at) => write!(f, "{up}[{at}]"),
        }
    }
}
