//! The cluster as this policy remembers it: columns over slots, classes, and pods by id.

use rustc_hash::FxHashMap as Map;
use sdk::scheduler::records::{CPU, Class, Delta, MEMORY, Node, PODS, Port, Text};
use sdk::scheduler::{Change, NodeSet};

/// What a delta did, for those who keep answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    Everything,
    /// Labels, taints or whether it takes pods at all.
    Node(u32),
    /// How much the node has.
    Capacity(u32),
    NodeGone(u32),
    /// Pods of this class on this slot: so many more.
    Pods {
        class: u32,
        slot: u32,
        more: i32,
    },
    ClassGone(u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Placed {
    class: u32,
    slot: u32,
}

/// A pod's state before a supposition.
#[derive(Debug, Clone, Copy)]
pub struct Before {
    id: u64,
    was: Option<Placed>,
}

/// One resource over all slots.
#[derive(Debug, Default)]
pub struct Column {
    pub allocatable: Vec<i64>,
    pub used: Vec<i64>,
}

impl Column {
    fn grow(&mut self, slots: usize) {
        self.allocatable.resize(slots, 0);
        self.used.resize(slots, 0);
    }

    /// Leaves of `nodes` those where `amount` is free.
    pub fn keep_free(&self, amount: i64, nodes: &mut NodeSet) {
        let sixty_four = self.allocatable.chunks(64).zip(self.used.chunks(64));
        for (word, (all, used)) in nodes.0.iter_mut().zip(sixty_four) {
            let mut free = 0;
            for (bit, (all, used)) in all.iter().zip(used).enumerate() {
                free |= u64::from(all - used >= amount) << bit;
            }
            *word &= free;
        }
    }
}

#[derive(Debug, Default)]
pub struct Mirror {
    texts: Vec<String>,
    resources: Vec<String>,
    pub live: NodeSet,
    /// Those of them that have no taints and are not cordoned.
    pub plain: NodeSet,
    nodes: Vec<Option<Node>>,
    /// By resource index.
    pub columns: Vec<Column>,
    /// Cpu and memory as scoring counts them.
    pub for_score: [Column; 2],
    ports: Map<u32, Vec<Port>>,
    classes: Map<u32, Class>,
    pods: Map<u64, Placed>,
    /// Pods of a class on a slot.
    counts: Map<u32, Map<u32, u32>>,
}

impl Mirror {
    pub fn take_in(&mut self, delta: Delta<'_>, changed: &mut impl FnMut(Changed)) {
        match delta {
            Delta::Reset => {
                *self = Mirror::default();
                changed(Changed::Everything);
            }
            Delta::Text { id, text } => put_text(&mut self.texts, id, text),
            Delta::Resource { index, name } => put_text(&mut self.resources, index, name),
            Delta::Node(node) => {
                let slot = node.slot;
                let old = self.node(slot);
                let same = old.is_some_and(|old| {
                    (old.name, old.unschedulable) == (node.name, node.unschedulable)
                        && old.labels == node.labels
                        && old.taints == node.taints
                });
                self.put_node(node);
                changed(if same {
                    Changed::Capacity(slot)
                } else {
                    Changed::Node(slot)
                });
            }
            Delta::NodeGone { slot } => self.remove_node(slot, changed),
            Delta::Class { id, class } => {
                self.classes.insert(id, *class);
            }
            Delta::ClassGone { id } => {
                self.classes.remove(&id);
                self.counts.remove(&id);
                changed(Changed::ClassGone(id));
            }
            Delta::Pod {
                id,
                class,
                slot,
                terminating: _,
            } => self.set(id, Some(Placed { class, slot }), changed),
            Delta::PodGone { id } => self.set(id, None, changed),
        }
    }

    pub fn text(&self, id: Text) -> &str {
        self.texts.get(id as usize).map_or("", String::as_str)
    }

    /// The id of a text, if anything mentions it. Not for hot paths.
    pub fn find_text(&self, text: &str) -> Option<Text> {
        self.texts.iter().position(|t| t == text).map(|at| at as Text)
    }

    pub fn resource(&self, index: u32) -> &str {
        self.resources.get(index as usize).map_or("", String::as_str)
    }

    pub fn node(&self, slot: u32) -> Option<&Node> {
        self.nodes.get(slot as usize)?.as_ref()
    }

    pub fn slots(&self) -> usize {
        self.nodes.len()
    }

    /// # Errors
    /// When the host never told of this class.
    pub fn class(&self, id: u32) -> Result<&Class, String> {
        self.classes
            .get(&id)
            .ok_or_else(|| format!("class {id} was never told"))
    }

    pub fn known_classes(&self) -> impl Iterator<Item = (u32, &Class)> {
        self.classes.iter().map(|(&id, class)| (id, class))
    }

    /// How many pods of the class are on each slot that has some.
    pub fn counts(&self, class: u32) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.counts
            .get(&class)
            .into_iter()
            .flatten()
            .map(|(&slot, &count)| (slot, count))
    }

    pub fn ports(&self, slot: u32) -> &[Port] {
        self.ports.get(&slot).map_or(&[], Vec::as_slice)
    }

    pub fn free(&self, resource: u32, slot: u32) -> i64 {
        self.columns
            .get(resource as usize)
            .map_or(0, |c| c.allocatable[slot as usize] - c.used[slot as usize])
    }

    pub fn pods_below(&self, priority: i32, among: &NodeSet) -> impl Iterator<Item = u64> {
        let lower = move |class: u32| self.classes.get(&class).is_some_and(|c: &Class| c.priority < priority);
        self.pods
            .iter()
            .filter(move |(_, p)| among.contains(p.slot) && lower(p.class))
            .map(|(&id, _)| id)
    }

    /// Makes a change that has not happened; [`Mirror::put_back`] undoes it.
    pub fn suppose(&mut self, change: Change, changed: &mut impl FnMut(Changed)) -> Before {
        let (id, now) = match change {
            Change::Removed(id) => (id, None),
            Change::Added(pod, slot) => (pod.id, Some(Placed { class: pod.class, slot })),
        };
        let was = self.pods.get(&id).copied();
        self.set(id, now, changed);
        Before { id, was }
    }

    pub fn put_back(&mut self, before: Before, changed: &mut impl FnMut(Changed)) {
        self.set(before.id, before.was, changed);
    }

    fn put_node(&mut self, node: Node) {
        let at = node.slot as usize;
        if at >= self.nodes.len() {
            self.nodes.resize_with(at + 1, || None);
            let slots = self.nodes.len();
            self.columns
                .iter_mut()
                .chain(&mut self.for_score)
                .for_each(|c| c.grow(slots));
        }
        for column in &mut self.columns {
            column.allocatable[at] = 0;
        }
        let slots = self.nodes.len();
        for &(resource, amount) in &node.allocatable {
            column(&mut self.columns, slots, resource).allocatable[at] = amount;
            if let Some(column) = self.for_score.get_mut(resource as usize) {
                column.allocatable[at] = amount;
            }
        }
        self.live.insert(node.slot);
        self.plain.set(node.slot, node.taints.is_empty() && !node.unschedulable);
        self.nodes[at] = Some(node);
    }

    fn remove_node(&mut self, slot: u32, changed: &mut impl FnMut(Changed)) {
        let gone: Vec<u64> = self
            .pods
            .iter()
            .filter(|(_, p)| p.slot == slot)
            .map(|(&id, _)| id)
            .collect();
        for id in gone {
            self.set(id, None, changed);
        }
        self.live.remove(slot);
        self.plain.remove(slot);
        if let Some(node) = self.nodes.get_mut(slot as usize) {
            *node = None;
        }
        changed(Changed::NodeGone(slot));
    }

    fn set(&mut self, id: u64, now: Option<Placed>, changed: &mut impl FnMut(Changed)) {
        let was = match now {
            Some(placed) => self.pods.insert(id, placed),
            None => self.pods.remove(&id),
        };
        if was == now {
            return;
        }
        for (placed, more) in [(was, -1), (now, 1)] {
            if let Some(placed) = placed {
                self.count(placed, more);
                changed(Changed::Pods {
                    class: placed.class,
                    slot: placed.slot,
                    more,
                });
            }
        }
    }

    fn count(&mut self, placed: Placed, more: i32) {
        let Placed { class, slot } = placed;
        let by_slot = self.counts.entry(class).or_default();
        let count = by_slot.entry(slot).or_default();
        *count = count.saturating_add_signed(more);
        if *count == 0 {
            by_slot.remove(&slot);
        }
        let Some(class) = self.classes.get(&class) else { return };
        if !class.ports.is_empty() {
            let taken = self.ports.entry(slot).or_default();
            for port in &class.ports {
                if more > 0 {
                    taken.push(*port);
                } else if let Some(at) = taken.iter().position(|p| p == port) {
                    taken.swap_remove(at);
                }
            }
            if taken.is_empty() {
                self.ports.remove(&slot);
            }
        }
        let (at, slots, more) = (slot as usize, self.nodes.len(), i64::from(more));
        if at >= slots {
            return;
        }
        for &(resource, amount) in &class.requests {
            column(&mut self.columns, slots, resource).used[at] += more * amount;
        }
        column(&mut self.columns, slots, PODS).used[at] += more;
        self.for_score[CPU as usize].used[at] += more * class.for_score.0;
        self.for_score[MEMORY as usize].used[at] += more * class.for_score.1;
    }
}

/// The column of a resource; all columns are as long as there are slots.
fn column(columns: &mut Vec<Column>, slots: usize, resource: u32) -> &mut Column {
    let at = resource as usize;
    while columns.len() <= at {
        let mut new = Column::default();
        new.grow(slots);
        columns.push(new);
    }
    &mut columns[at]
}

fn put_text(texts: &mut Vec<String>, id: u32, text: &str) {
    let at = id as usize;
    if at >= texts.len() {
        texts.resize(at + 1, String::new());
    }
    texts[at] = text.into();
}
