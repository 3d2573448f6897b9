//! What crosses to a policy's mirror, byte by byte: the encoder. `sdk::scheduler::records` decodes.
//!
//! All numbers are little-endian; nothing is aligned or padded. A stream is records end to end:
//!
//! ```text
//! record   = head u32 (low 8 bits: op, high 24: length of the body), body
//!
//! op 0 reset      -                                   forget everything
//!    1 text       id u32, UTF-8                       what the number stands for from now on; 0 is the empty text
//!    2 resource   index u32, UTF-8                    0 cpu, 1 memory, 2 ephemeral-storage, 3 pods, then as met
//!    3 node       slot u32, name text, flags u8 (1: unschedulable),
//!                 allocatable list of (resource u32, i64), labels list of (text, text),
//!                 taints list of (key text, value text, effect u8), images list of (text, bytes i64)
//!    4 node-gone  slot u32                            its pods are gone with it
//!    5 class      id u32, sections                    what a pod of this class is and wishes
//!    6 class-gone id u32                              no pod of it is left, anywhere
//!    7 pod        id u64, class u32, slot u32, flags u8 (1: being deleted)   there, or assumed to be; replaces the last word on this id
//!    8 pod-gone   id u64
//!
//! text     = u32, an id
//! list     = count u16, elements
//! cpu amounts are millicores, all others whole units; effect 0 NoSchedule, 1 PreferNoSchedule, 2 NoExecute
//!
//! section  = head u32 (tag, length), body; absent when empty; unknown tags are to be skipped
//! tag  1 identity   namespace text, priority i32
//!      2 requests   list of (resource u32, i64); `pods` is not among them: every pod asks for one
//!      3 for-score  cpu i64, memory i64: requests, with 100m and 200 MiB where a container names none
//!      4 labels     list of (text, text)
//!      5 selector   list of (text, text): nodeSelector
//!      6 required   list of node terms, one of which must match
//!      7 preferred  list of (weight i32, node term)
//!      8 tolerations list of (key text or 0 for all, op u8 (0 Equal, 1 Exists, 2 Lt, 3 Gt), value text, effect u8 or 255 for all)
//!      9 ports      list of (protocol u8 (0 TCP, 1 UDP, 2 SCTP), port u16, address text or 0 for all)
//!     10 spread     list of (max skew i32, topology key text, when u8 (0 DoNotSchedule, 1 ScheduleAnyway), min domains u32,
//!                   node affinity policy u8, node taints policy u8 (0 Ignore, 1 Honor), selector)
//!     11 images     list of text
//!     12 node-name  text: only the node of this name will do
//!
//! node term   = list of expressions on labels, list of expressions on fields (`metadata.name`); all must hold, and one must be there
//! expression  = key text, op u8 (0 In, 1 NotIn, 2 Exists, 3 DoesNotExist, 4 Gt, 5 Lt), list of values text
//! selector    = nothing u8 (1: matches no pod), list of expressions
//! ```
//!
//! A byte of the stream is written once and read by every policy. Texts are sent before what uses them.

/// Ops of a record and tags of a section, as the layout numbers them.
pub mod op {
    pub const RESET: u8 = 0;
    pub const TEXT: u8 = 1;
    pub const RESOURCE: u8 = 2;
    pub const NODE: u8 = 3;
    pub const NODE_GONE: u8 = 4;
    pub const CLASS: u8 = 5;
    pub const CLASS_GONE: u8 = 6;
    pub const POD: u8 = 7;
    pub const POD_GONE: u8 = 8;
}

/// Tags of a class's sections.
pub mod tag {
    pub const IDENTITY: u8 = 1;
    pub const REQUESTS: u8 = 2;
    pub const FOR_SCORE: u8 = 3;
    pub const LABELS: u8 = 4;
    pub const SELECTOR: u8 = 5;
    pub const REQUIRED: u8 = 6;
    pub const PREFERRED: u8 = 7;
    pub const TOLERATIONS: u8 = 8;
    pub const PORTS: u8 = 9;
    pub const SPREAD: u8 = 10;
    pub const IMAGES: u8 = 11;
    pub const NODE_NAME: u8 = 12;
}

/// Appends records to a block of bytes.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Empties it and keeps the room.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// A record or a section: `body` writes what is in it, the head is put in front with its length.
    pub fn block(&mut self, op: u8, body: impl FnOnce(&mut Writer)) {
        let at = self.bytes.len();
        self.u32(0);
        body(self);
        let len = self.bytes.len() - at - 4;
        assert!(
            len < 1 << 24,
            "a record of {len} bytes does not fit its head; objects are bounded far below"
        );
        self.bytes[at..at + 4].copy_from_slice(&(u32::from(op) | (len as u32) << 8).to_le_bytes());
    }

    /// A section that is left out when `items` is empty.
    pub fn section<T>(&mut self, tag: u8, items: &[T], element: impl FnMut(&mut Writer, &T)) {
        if !items.is_empty() {
            self.block(tag, |w| w.list(items, element));
        }
    }

    /// At most 65,535 elements are written; objects are bounded far below.
    pub fn list<T>(&mut self, items: &[T], mut element: impl FnMut(&mut Writer, &T)) {
        let items = &items[..items.len().min(usize::from(u16::MAX))];
        self.u16(items.len() as u16);
        for item in items {
            element(self, item);
        }
    }

    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    pub fn u16(&mut self, value: u16) {
        self.raw(&value.to_le_bytes());
    }

    pub fn u32(&mut self, value: u32) {
        self.raw(&value.to_le_bytes());
    }

    pub fn i32(&mut self, value: i32) {
        self.raw(&value.to_le_bytes());
    }

    pub fn u64(&mut self, value: u64) {
        self.raw(&value.to_le_bytes());
    }

    pub fn i64(&mut self, value: i64) {
        self.raw(&value.to_le_bytes());
    }
}
