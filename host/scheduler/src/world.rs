//! The nodes and pods as placing sees them, and the stream of changes that keeps every policy's mirror equal to it.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;
use model::{Failure, Object, Uid};

use crate::needs::{Node, Pod};
use crate::nodeset::NodeSet;
use crate::records::{Writer, op};
use crate::resources::Resources;
use crate::snapshot::Snapshot;
use crate::texts::{Taker, Texts};

/// Classes without pods that are kept for the next pod of the kind: a rollout's pods come one by one.
const IDLE_CLASSES: usize = 1024;
/// Changes kept for a policy that has not asked for them yet. One that is further behind is filled anew.
const LOG_LIMIT: usize = 32 << 20;

/// Kept by the scheduler alone; nothing here waits.
#[derive(Debug, Default)]
pub struct World {
    texts: Texts,
    resources: Resources,
    nodes: Vec<Option<NodeEntry>>,
    free_slots: Vec<u32>,
    by_name: HashMap<Arc<str>, u32, ahash::RandomState>,
    live: NodeSet,
    pods: HashMap<u128, PodEntry, ahash::RandomState>,
    next_id: u64,
    class_ids: HashMap<Arc<[u8]>, u32, ahash::RandomState>,
    classes: HashMap<u32, ClassEntry, ahash::RandomState>,
    next_class: u32,
    idle: VecDeque<u32>,
    log: Writer,
    log_base: u64,
    helpful: u64,
}

/// A name that is a node, or that pods are bound to. Pods may be heard of before their node, and outlive it.
#[derive(Debug)]
struct NodeEntry {
    name: Arc<str>,
    /// `None`: there is no such node now; policies know neither it nor its pods.
    record: Option<Arc<[u8]>>,
    texts: Vec<u32>,
    pods: u32,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct PodEntry {
    pub(crate) id: u64,
    class: u32,
    slot: Option<u32>,
    terminating: bool,
}

#[derive(Debug)]
struct ClassEntry {
    bytes: Arc<[u8]>,
    texts: Vec<u32>,
    pods: u32,
}

/// A pod as policies know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PodRef {
    pub id: u64,
    pub class: u32,
}

/// How far a policy has read the stream; `None` until it has been given everything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor(Option<u64>);

impl World {
    /// Every node, by slot.
    pub fn live(&self) -> &NodeSet {
        &self.live
    }

    pub fn node_name(&self, slot: u32) -> Option<&Arc<str>> {
        self.nodes.get(slot as usize)?.as_ref().map(|n| &n.name)
    }

    pub fn slot(&self, node: &str) -> Option<u32> {
        self.by_name.get(node).copied()
    }

    /// Rises when something changed that may let a pod in which did not fit before.
    pub fn helpful_changes(&self) -> u64 {
        self.helpful
    }

    /// # Errors
    /// `Internal` when the node does not read as one; it is left as it was.
    pub fn put_node(&mut self, object: &Object) -> Result<(), Failure> {
        let node: Node = object.parse()?;
        let mut taker = Taker {
            texts: &mut self.texts,
            log: &mut self.log,
            used: Vec::new(),
        };
        let record = node.write(&mut taker, &mut self.resources);
        let texts = taker.used;
        let record = match record {
            Ok(record) => record,
            Err(failure) => {
                texts.into_iter().for_each(|id| self.texts.give_back(id));
                return Err(failure);
            }
        };
        let slot = self.slot_for(&object.key.name);
        let node = self.nodes[slot as usize].as_mut().expect("slot_for made it");
        let was_there = node.record.is_some();
        if node.record.as_deref() != Some(&record) {
            write_node(&mut self.log, slot, &record);
            self.helpful += 1;
            node.record = Some(record.into());
        }
        for id in std::mem::replace(&mut node.texts, texts) {
            self.texts.give_back(id);
        }
        self.live.insert(slot);
        if !was_there && node.pods > 0 {
            for pod in self.pods.values().filter(|p| p.slot == Some(slot)) {
                write_pod(&mut self.log, pod, slot);
            }
        }
        Ok(())
    }

    pub fn remove_node(&mut self, name: &str) {
        let Some(slot) = self.slot(name) else { return };
        let Some(node) = self.nodes[slot as usize].as_mut() else {
            return;
        };
        if node.record.take().is_none() {
            return;
        }
        for id in std::mem::take(&mut node.texts) {
            self.texts.give_back(id);
        }
        self.live.remove(slot);
        self.log.block(op::NODE_GONE, |w| w.u32(slot));
        self.free_if_empty(slot);
    }

    fn slot_for(&mut self, name: &str) -> u32 {
        if let Some(&slot) = self.by_name.get(name) {
            return slot;
        }
        let slot = self.free_slots.pop().unwrap_or(self.nodes.len() as u32);
        if slot as usize == self.nodes.len() {
            self.nodes.push(None);
        }
        let name: Arc<str> = name.into();
        self.by_name.insert(name.clone(), slot);
        self.nodes[slot as usize] = Some(NodeEntry {
            name,
            record: None,
            texts: Vec::new(),
            pods: 0,
        });
        slot
    }

    fn free_if_empty(&mut self, slot: u32) {
        let entry = &mut self.nodes[slot as usize];
        if entry
            .as_ref()
            .is_some_and(|node| node.record.is_none() && node.pods == 0)
            && let Some(node) = entry.take()
        {
            self.by_name.remove(&node.name);
            self.free_slots.push(slot);
        }
    }

    /// [`World::know`], from the document.
    ///
    /// # Errors
    /// `Internal` when the pod does not read as one, `BadRequest` for a request that is not a quantity.
    pub fn know_object(&mut self, object: &Object) -> Result<PodRef, Failure> {
        self.know(&object.uid, &Pod::read(object)?)
    }

    /// The pod's class and id, for a pod that is waiting or on a node. A pod whose wishes changed is a new class.
    pub(crate) fn know(&mut self, uid: &Uid, pod: &Pod) -> Result<PodRef, Failure> {
        let mut taker = Taker {
            texts: &mut self.texts,
            log: &mut self.log,
            used: Vec::new(),
        };
        let bytes = pod.write_class(&mut taker, &mut self.resources);
        let texts = taker.used;
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(failure) => {
                texts.into_iter().for_each(|id| self.texts.give_back(id));
                return Err(failure);
            }
        };
        let class = match self.class_ids.get(bytes.as_slice()) {
            Some(&class) => {
                texts.into_iter().for_each(|id| self.texts.give_back(id));
                class
            }
            None => {
                let class = self.next_class;
                self.next_class += 1;
                let bytes: Arc<[u8]> = bytes.into();
                write_class(&mut self.log, class, &bytes);
                self.class_ids.insert(bytes.clone(), class);
                self.classes.insert(class, ClassEntry { bytes, texts, pods: 0 });
                class
            }
        };
        let key = key_of(uid);
        let old = self.pods.get(&key).copied();
        if old.is_none_or(|old| old.class != class) {
            self.classes.get_mut(&class).expect("found or made above").pods += 1;
        }
        let id = match old {
            Some(old) => old.id,
            None => {
                self.next_id += 1;
                self.next_id
            }
        };
        let entry = PodEntry {
            id,
            class,
            slot: old.and_then(|o| o.slot),
            terminating: old.is_some_and(|o| o.terminating),
        };
        self.pods.insert(key, entry);
        if let Some(old) = old.filter(|old| old.class != class) {
            if let Some(slot) = old.slot.filter(|&slot| self.live.contains(slot)) {
                write_pod(&mut self.log, &entry, slot);
            }
            self.release(old.class);
        }
        Ok(PodRef { id, class })
    }

    /// The pod is on a node: bound, or assumed to be.
    pub fn assume(&mut self, uid: &Uid, node: &str, terminating: bool) {
        let key = key_of(uid);
        let Some(&old) = self.pods.get(&key) else { return };
        let slot = self.slot_for(node);
        if (old.slot, old.terminating) == (Some(slot), terminating) {
            return;
        }
        let pod = PodEntry {
            slot: Some(slot),
            terminating,
            ..old
        };
        self.pods.insert(key, pod);
        if old.slot != Some(slot) {
            self.node_mut(slot).pods += 1;
            if let Some(left) = old.slot {
                self.leave(left);
            }
        }
        if self.live.contains(slot) {
            write_pod(&mut self.log, &pod, slot);
        } else if old.slot.is_some_and(|left| self.live.contains(left)) {
            // Policies know it where it was, and nothing of where it is.
            self.log.block(op::POD_GONE, |w| w.u64(pod.id));
        }
    }

    /// The binding did not come about: the pod waits again, and its place is free.
    pub fn forget(&mut self, uid: &Uid) {
        let Some(pod) = self.pods.get_mut(&key_of(uid)) else {
            return;
        };
        let id = pod.id;
        if let Some(slot) = pod.slot.take() {
            if self.live.contains(slot) {
                self.log.block(op::POD_GONE, |w| w.u64(id));
            }
            self.helpful += 1;
            self.leave(slot);
        }
    }

    fn node_mut(&mut self, slot: u32) -> &mut NodeEntry {
        self.nodes[slot as usize]
            .as_mut()
            .expect("a slot with pods has its entry")
    }

    fn leave(&mut self, slot: u32) {
        self.node_mut(slot).pods -= 1;
        self.free_if_empty(slot);
    }

    /// The pod is gone or finished.
    pub fn remove_pod(&mut self, uid: &Uid) {
        self.forget(uid);
        if let Some(pod) = self.pods.remove(&key_of(uid)) {
            self.release(pod.class);
        }
    }

    pub fn on_node(&self, uid: &Uid) -> Option<u32> {
        self.pods.get(&key_of(uid))?.slot
    }

    fn release(&mut self, class: u32) {
        let entry = self.classes.get_mut(&class).expect("a pod's class is kept");
        entry.pods -= 1;
        if entry.pods > 0 {
            return;
        }
        self.idle.push_back(class);
        while self.idle.len() > IDLE_CLASSES {
            let Some(oldest) = self.idle.pop_front() else { break };
            // It may have got pods since, or stand in the line twice: it goes when it is idle now.
            if self.classes.get(&oldest).is_some_and(|c| c.pods == 0)
                && let Some(gone) = self.classes.remove(&oldest)
            {
                self.class_ids.remove(&gone.bytes);
                gone.texts.into_iter().for_each(|id| self.texts.give_back(id));
                self.log.block(op::CLASS_GONE, |w| w.u32(oldest));
            }
        }
    }

    /// What a policy at `cursor` has not seen, and where it is then. `None`: it is too far behind, or new; give it
    /// a
    /// [`World::snapshot`].
    pub fn since(&self, cursor: Cursor) -> Option<(&[u8], Cursor)> {
        let at = cursor.0?.checked_sub(self.log_base)?;
        Some((self.log.bytes().get(at as usize..)?, self.end()))
    }

    /// Where the stream ends now.
    pub fn end(&self) -> Cursor {
        Cursor(Some(self.log_base + self.log.bytes().len() as u64))
    }

    /// Everything, for a policy that knows nothing. Takes about 1 ms at 5,000 nodes and 50,000 pods; what takes longer is left
    /// to [`Snapshot::write`].
    pub fn snapshot(&self) -> Snapshot {
        let mut head = Writer::new();
        head.block(op::RESET, |_| {});
        self.texts.write_all(&mut head);
        self.resources.write_all(&mut head);
        let node = |(slot, node): (usize, &Option<NodeEntry>)| Some((slot as u32, node.as_ref()?.record.clone()?));
        let placed = |pod: &PodEntry| Some((*pod, pod.slot.filter(|&slot| self.live.contains(slot))?));
        Snapshot {
            head,
            nodes: self.nodes.iter().enumerate().filter_map(node).collect(),
            classes: self
                .classes
                .iter()
                .map(|(&id, class)| (id, class.bytes.clone()))
                .collect(),
            pods: self.pods.values().filter_map(placed).collect(),
            end: self.end(),
        }
    }

    /// Drops what every policy has read; `slowest` is the cursor furthest behind.
    pub fn trim(&mut self, slowest: Cursor) {
        if slowest == self.end() || self.log.bytes().len() > LOG_LIMIT {
            self.log_base += self.log.bytes().len() as u64;
            self.log.clear();
        }
    }
}

pub(crate) fn write_node(log: &mut Writer, slot: u32, record: &[u8]) {
    log.block(op::NODE, |w| {
        w.u32(slot);
        w.raw(record);
    });
}

pub(crate) fn write_class(log: &mut Writer, id: u32, bytes: &[u8]) {
    log.block(op::CLASS, |w| {
        w.u32(id);
        w.raw(bytes);
    });
}

pub(crate) fn write_pod(log: &mut Writer, pod: &PodEntry, slot: u32) {
    log.block(op::POD, |w| {
        w.u64(pod.id);
        w.u32(pod.class);
        w.u32(slot);
        w.u8(u8::from(pod.terminating));
    });
}

/// A uid as a number: UUIDs by their own 128 bits, anything else (mirror pods have such) by FNV-1a of that width.
fn key_of(uid: &Uid) -> u128 {
    let text = uid.0.as_str();
    let mut value: u128 = 0;
    let mut digits = 0;
    for byte in text.bytes() {
        match (byte as char).to_digit(16) {
            Some(digit) => (value, digits) = (value << 4 | u128::from(digit), digits + 1),
            None if byte == b'-' => {}
            None => digits = 99,
        }
    }
    if digits == 32 {
        return value;
    }
    text.bytes()
        .fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, |hash, byte| {
            (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
        })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use model::{GroupResource, Gvk, Object, ObjectKey};
    use serde_json::json;

    use super::*;

    fn pod(n: u32) -> Object {
        let name = format!("pod-{n}");
        let value = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", "uid": name, "labels": {"own": name}},
            "spec": {"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "1"}}}]},
        });
        let key = ObjectKey::new(GroupResource::new("", "pods"), "default", &name);
        Object::from_value(Arc::new(Gvk::new("", "v1", "Pod")), key, &value).expect("a pod")
    }

    #[test]
    fn what_is_gone_leaves_nothing_behind() {
        let mut world = World::default();
        for n in 0..3000 {
            let pod = pod(n);
            world.know_object(&pod).expect("it reads");
            world.remove_pod(&pod.uid);
        }
        assert!(
            world.classes.len() <= IDLE_CLASSES,
            "{} classes are kept",
            world.classes.len()
        );
        // Each kept class has two texts of its own (a label's value) and shares the others.
        assert!(
            world.texts.len() <= IDLE_CLASSES + 8,
            "{} texts are kept",
            world.texts.len()
        );
        assert!(world.pods.is_empty());
    }

    #[test]
    fn pods_may_be_heard_of_before_their_node() {
        let mut world = World::default();
        let pod = pod(1);
        world.know_object(&pod).expect("it reads");
        world.assume(&pod.uid, "late", false);
        assert_eq!(world.live().len(), 0);
        let before = world.snapshot().write();
        let node = json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": "late", "uid": "n"},
            "status": {"allocatable": {"cpu": "2", "pods": "10"}},
        });
        let key = ObjectKey::new(GroupResource::new("", "nodes"), "", "late");
        world
            .put_node(&Object::from_value(Arc::new(Gvk::new("", "v1", "Node")), key, &node).expect("a node"))
            .expect("it reads");
        let after = world.snapshot().write();
        assert!(after.len() > before.len());
        assert_eq!(world.on_node(&pod.uid), world.slot("late"));
        world.remove_node("late");
        assert!(world.slot("late").is_some(), "its pod is still bound to the name");
        world.remove_pod(&pod.uid);
        assert_eq!(world.slot("late"), None);
    }
}
