//! Resources by number: `cpu`, `memory`, `ephemeral-storage` and `pods` are 0 to 3, the others as they are met.

use hashbrown::HashMap;

use crate::records::{Writer, op};

/// Names are never given back: a cluster has a handful of extended resources.
#[derive(Debug)]
pub(crate) struct Resources {
    indexes: HashMap<String, u32, ahash::RandomState>,
    names: Vec<String>,
}

impl Default for Resources {
    fn default() -> Self {
        let names = ["cpu", "memory", "ephemeral-storage", "pods"]
            .map(String::from)
            .to_vec();
        let indexes = names.iter().cloned().zip(0..).collect();
        Self { indexes, names }
    }
}

impl Resources {
    pub(crate) fn index(&mut self, name: &str, log: &mut Writer) -> u32 {
        if let Some(&index) = self.indexes.get(name) {
            return index;
        }
        let index = self.names.len() as u32;
        self.names.push(name.into());
        self.indexes.insert(name.into(), index);
        write(log, index, name);
        index
    }

    pub(crate) fn write_all(&self, log: &mut Writer) {
        for (index, name) in self.names.iter().enumerate() {
            write(log, index as u32, name);
        }
    }
}

fn write(log: &mut Writer, index: u32, name: &str) {
    log.block(op::RESOURCE, |w| {
        w.u32(index);
        w.raw(name.as_bytes());
    });
}
