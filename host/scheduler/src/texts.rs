//! Texts by number: labels, names and keys cross the wall once and are small numbers from then on.

use std::sync::Arc;

use hashbrown::HashMap;

use crate::records::{Writer, op};

/// Interned texts, counted: an id whose last user is gone is given to another text, so the table is as large as what is in use.
#[derive(Debug)]
pub(crate) struct Texts {
    ids: HashMap<Arc<str>, u32, ahash::RandomState>,
    slots: Vec<Option<(Arc<str>, u32)>>,
    free: Vec<u32>,
}

impl Default for Texts {
    fn default() -> Self {
        // Id 0 is the empty text and never given away.
        Self {
            ids: HashMap::default(),
            slots: vec![None],
            free: Vec::new(),
        }
    }
}

impl Texts {
    /// The id of `text`, with one more user. A new text is written to `log` before anything can mention it.
    pub(crate) fn take(&mut self, text: &str, log: &mut Writer) -> u32 {
        if text.is_empty() {
            return 0;
        }
        if let Some(&id) = self.ids.get(text) {
            self.slots[id as usize].as_mut().expect("a known id has its text").1 += 1;
            return id;
        }
        let shared: Arc<str> = text.into();
        let id = self.free.pop().unwrap_or(self.slots.len() as u32);
        if id as usize == self.slots.len() {
            self.slots.push(None);
        }
        self.slots[id as usize] = Some((shared.clone(), 1));
        self.ids.insert(shared, id);
        write(log, id, text);
        id
    }

    pub(crate) fn give_back(&mut self, id: u32) {
        let Some(Some((text, users))) = self.slots.get_mut(id as usize) else {
            return;
        };
        *users -= 1;
        if *users == 0 {
            let text = text.clone();
            self.ids.remove(&text);
            self.slots[id as usize] = None;
            self.free.push(id);
        }
    }

    pub(crate) fn write_all(&self, log: &mut Writer) {
        for (id, slot) in self.slots.iter().enumerate() {
            if let Some((text, _)) = slot {
                write(log, id as u32, text);
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }
}

fn write(log: &mut Writer, id: u32, text: &str) {
    log.block(op::TEXT, |w| {
        w.u32(id);
        w.raw(text.as_bytes());
    });
}

/// Takes texts on behalf of one node or class and remembers them, to be given back together.
pub(crate) struct Taker<'a> {
    pub(crate) texts: &'a mut Texts,
    pub(crate) log: &'a mut Writer,
    pub(crate) used: Vec<u32>,
}

impl Taker<'_> {
    pub(crate) fn take(&mut self, text: &str) -> u32 {
        let id = self.texts.take(text, self.log);
        self.used.push(id);
        id
    }
}
