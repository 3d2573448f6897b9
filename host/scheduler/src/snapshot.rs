//! The world at one moment, to fill a mirror with: taken on the placing path in little time, written anywhere.

use std::sync::Arc;

use crate::records::Writer;
use crate::world::{Cursor, PodEntry, write_class, write_node, write_pod};

/// What [`crate::world::World::snapshot`] takes. Encoded records are shared with the world; pods, 24 bytes each, are copied.
#[derive(Debug)]
pub struct Snapshot {
    /// `reset`, texts and resources, written already.
    pub(crate) head: Writer,
    pub(crate) nodes: Vec<(u32, Arc<[u8]>)>,
    pub(crate) classes: Vec<(u32, Arc<[u8]>)>,
    /// On live nodes, each with its slot.
    pub(crate) pods: Vec<(PodEntry, u32)>,
    pub(crate) end: Cursor,
}

impl Snapshot {
    /// Where a policy is that was given this.
    pub fn end(&self) -> Cursor {
        self.end
    }

    /// One stream that begins with `reset`. Equal worlds give equal bytes.
    pub fn write(mut self) -> Vec<u8> {
        let mut w = self.head;
        for (slot, record) in &self.nodes {
            write_node(&mut w, *slot, record);
        }
        self.classes.sort_unstable_by_key(|(id, _)| *id);
        for (id, bytes) in &self.classes {
            write_class(&mut w, *id, bytes);
        }
        self.pods.sort_unstable_by_key(|(pod, _)| pod.id);
        for (pod, slot) in &self.pods {
            write_pod(&mut w, pod, *slot);
        }
        w.into_bytes()
    }
}
