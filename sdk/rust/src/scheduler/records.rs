//! What a policy's mirror is told: the decoder of the layout that `scheduler::records` in the host documents and writes.

/// `cpu` (millicores), `memory` (bytes), `ephemeral-storage` (bytes) and `pods` have these indexes everywhere.
pub const CPU: u32 = 0;
pub const MEMORY: u32 = 1;
pub const EPHEMERAL_STORAGE: u32 = 2;
pub const PODS: u32 = 3;

/// The id of an interned text; 0 is the empty one.
pub type Text = u32;

/// One change.
#[derive(Debug, Clone, PartialEq)]
pub enum Delta<'a> {
    Reset,
    Text {
        id: Text,
        text: &'a str,
    },
    Resource {
        index: u32,
        name: &'a str,
    },
    Node(Node),
    NodeGone {
        slot: u32,
    },
    Class {
        id: u32,
        class: Box<Class>,
    },
    ClassGone {
        id: u32,
    },
    Pod {
        id: u64,
        class: u32,
        slot: u32,
        terminating: bool,
    },
    PodGone {
        id: u64,
    },
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    pub slot: u32,
    pub name: Text,
    pub unschedulable: bool,
    pub allocatable: Vec<(u32, i64)>,
    /// In order of the key's id.
    pub labels: Vec<(Text, Text)>,
    pub taints: Vec<Taint>,
    pub images: Vec<(Text, i64)>,
}

impl Node {
    pub fn label(&self, key: Text) -> Option<Text> {
        label(&self.labels, key)
    }
}

/// The value of `key` among labels in order of their keys.
pub fn label(labels: &[(Text, Text)], key: Text) -> Option<Text> {
    labels
        .binary_search_by_key(&key, |&(k, _)| k)
        .ok()
        .map(|at| labels[at].1)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taint {
    pub key: Text,
    pub value: Text,
    pub effect: u8,
}

/// Effects of a taint.
pub const NO_SCHEDULE: u8 = 0;
pub const PREFER_NO_SCHEDULE: u8 = 1;
pub const NO_EXECUTE: u8 = 2;
/// A toleration's effect that stands for all.
pub const ANY_EFFECT: u8 = 255;

/// What the pods of a class are and wish.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Class {
    pub namespace: Text,
    pub priority: i32,
    pub requests: Vec<(u32, i64)>,
    /// Cpu and memory with kube-scheduler's assumptions for containers that ask for none.
    pub for_score: (i64, i64),
    /// In order of the key's id.
    pub labels: Vec<(Text, Text)>,
    pub node_selector: Vec<(Text, Text)>,
    pub required: Option<Vec<NodeTerm>>,
    pub preferred: Vec<(i32, NodeTerm)>,
    pub tolerations: Vec<Toleration>,
    pub ports: Vec<Port>,
    pub spread: Vec<Spread>,
    pub images: Vec<Text>,
    pub node_name: Option<Text>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeTerm {
    pub labels: Vec<Expression>,
    pub fields: Vec<Expression>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expression {
    pub key: Text,
    pub op: Operator,
    pub values: Vec<Text>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    Gt,
    Lt,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Toleration {
    /// 0 with `Exists`: every taint.
    pub key: Text,
    pub op: TolerationOperator,
    pub value: Text,
    pub effect: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TolerationOperator {
    Equal,
    Exists,
    /// Numbers (KEP-5471).
    Lt,
    Gt,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    pub protocol: u8,
    pub port: u16,
    /// 0: every address.
    pub address: Text,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spread {
    pub max_skew: i32,
    pub topology_key: Text,
    /// `DoNotSchedule`; otherwise `ScheduleAnyway`.
    pub hard: bool,
    pub min_domains: u32,
    pub honor_affinity: bool,
    pub honor_taints: bool,
    pub selector: Selector,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector {
    /// A constraint without a selector counts nothing.
    pub nothing: bool,
    pub expressions: Vec<Expression>,
}

impl Selector {
    /// `labels` in order of the key's id.
    pub fn matches(&self, labels: &[(Text, Text)]) -> bool {
        !self.nothing
            && self.expressions.iter().all(|e| {
                let value = label(labels, e.key);
                match e.op {
                    Operator::In => value.is_some_and(|v| e.values.contains(&v)),
                    Operator::NotIn => value.is_none_or(|v| !e.values.contains(&v)),
                    Operator::Exists => value.is_some(),
                    Operator::DoesNotExist => value.is_none(),
                    // Label selectors have no others; a host that sends one means something newer, which matches nothing.
                    Operator::Gt | Operator::Lt => false,
                }
            })
    }
}

/// Calls `each` for every record in order.
///
/// # Errors
/// Where the bytes stop following the layout. What came before has been handed out.
pub fn read<'a>(bytes: &'a [u8], mut each: impl FnMut(Delta<'a>)) -> Result<(), String> {
    let mut all = Reader { bytes };
    while !all.bytes.is_empty() {
        let (op, mut r) = all.block()?;
        each(match op {
            0 => Delta::Reset,
            1 => Delta::Text {
                id: r.u32()?,
                text: r.rest()?,
            },
            2 => Delta::Resource {
                index: r.u32()?,
                name: r.rest()?,
            },
            3 => Delta::Node(node(&mut r)?),
            4 => Delta::NodeGone { slot: r.u32()? },
            5 => Delta::Class {
                id: r.u32()?,
                class: Box::new(class(&mut r)?),
            },
            6 => Delta::ClassGone { id: r.u32()? },
            7 => Delta::Pod {
                id: r.u64()?,
                class: r.u32()?,
                slot: r.u32()?,
                terminating: r.u8()? & 1 == 1,
            },
            8 => Delta::PodGone { id: r.u64()? },
            other => {
                return Err(format!("record {other} is not of this version of the layout"));
            }
        });
    }
    Ok(())
}

fn node(r: &mut Reader<'_>) -> Result<Node, String> {
    Ok(Node {
        slot: r.u32()?,
        name: r.u32()?,
        unschedulable: r.u8()? & 1 == 1,
        allocatable: r.list(|r| Ok((r.u32()?, r.i64()?)))?,
        labels: r.labels()?,
        taints: r.list(|r| {
            Ok(Taint {
                key: r.u32()?,
                value: r.u32()?,
                effect: r.u8()?,
            })
        })?,
        images: r.list(|r| Ok((r.u32()?, r.i64()?)))?,
    })
}

fn class(all: &mut Reader<'_>) -> Result<Class, String> {
    let mut class = Class::default();
    while !all.bytes.is_empty() {
        let (tag, mut r) = all.block()?;
        match tag {
            1 => (class.namespace, class.priority) = (r.u32()?, r.i32()?),
            2 => class.requests = r.list(|r| Ok((r.u32()?, r.i64()?)))?,
            3 => class.for_score = (r.i64()?, r.i64()?),
            4 => class.labels = r.labels()?,
            5 => class.node_selector = r.list(|r| Ok((r.u32()?, r.u32()?)))?,
            6 => class.required = Some(r.list(Reader::term)?),
            7 => class.preferred = r.list(|r| Ok((r.i32()?, r.term()?)))?,
            8 => class.tolerations = r.list(Reader::toleration)?,
            9 => {
                class.ports = r.list(|r| {
                    Ok(Port {
                        protocol: r.u8()?,
                        port: r.u16()?,
                        address: r.u32()?,
                    })
                })?
            }
            10 => class.spread = r.list(Reader::spread)?,
            11 => class.images = r.list(Reader::u32)?,
            12 => class.node_name = Some(r.u32()?),
            // A newer host's section: this policy was written without it.
            _ => {}
        }
    }
    Ok(class)
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], String> {
        let (head, tail) = self.bytes.split_at_checked(n).ok_or("the record ends too early")?;
        self.bytes = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        Ok(self.take(N)?.try_into().expect("take gave N bytes"))
    }

    fn block(&mut self) -> Result<(u8, Reader<'a>), String> {
        let head = self.u32()?;
        Ok((
            head as u8,
            Reader {
                bytes: self.take((head >> 8) as usize)?,
            },
        ))
    }

    fn rest(&mut self) -> Result<&'a str, String> {
        let bytes = self.take(self.bytes.len())?;
        std::str::from_utf8(bytes).map_err(|_| "a text is not UTF-8".into())
    }

    fn u8(&mut self) -> Result<u8, String> {
        Ok(self.array::<1>()?[0])
    }

    fn u16(&mut self) -> Result<u16, String> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, String> {
        self.array().map(u32::from_le_bytes)
    }

    fn i32(&mut self) -> Result<i32, String> {
        self.array().map(i32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, String> {
        self.array().map(u64::from_le_bytes)
    }

    fn i64(&mut self) -> Result<i64, String> {
        self.array().map(i64::from_le_bytes)
    }

    fn list<T>(&mut self, mut element: impl FnMut(&mut Self) -> Result<T, String>) -> Result<Vec<T>, String> {
        let count = self.u16()?;
        (0..count).map(|_| element(self)).collect()
    }

    fn labels(&mut self) -> Result<Vec<(Text, Text)>, String> {
        let mut labels = self.list(|r| Ok((r.u32()?, r.u32()?)))?;
        labels.sort_unstable();
        Ok(labels)
    }

    fn expression(&mut self) -> Result<Expression, String> {
        let key = self.u32()?;
        let op = match self.u8()? {
            0 => Operator::In,
            1 => Operator::NotIn,
            2 => Operator::Exists,
            3 => Operator::DoesNotExist,
            4 => Operator::Gt,
            5 => Operator::Lt,
            other => {
                return Err(format!("operator {other} is not of this version of the layout"));
            }
        };
        Ok(Expression {
            key,
            op,
            values: self.list(Self::u32)?,
        })
    }

    fn term(&mut self) -> Result<NodeTerm, String> {
        Ok(NodeTerm {
            labels: self.list(Self::expression)?,
            fields: self.list(Self::expression)?,
        })
    }

    fn toleration(&mut self) -> Result<Toleration, String> {
        let key = self.u32()?;
        let op = match self.u8()? {
            0 => TolerationOperator::Equal,
            1 => TolerationOperator::Exists,
            2 => TolerationOperator::Lt,
            3 => TolerationOperator::Gt,
            other => {
                return Err(format!(
                    "toleration operator {other} is not of this version of the layout"
                ));
            }
        };
        Ok(Toleration {
            key,
            op,
            value: self.u32()?,
            effect: self.u8()?,
        })
    }

    fn spread(&mut self) -> Result<Spread, String> {
        Ok(Spread {
            max_skew: self.i32()?,
            topology_key: self.u32()?,
            hard: self.u8()? == 0,
            min_domains: self.u32()?,
            honor_affinity: self.u8()? == 1,
            honor_taints: self.u8()? == 1,
            selector: Selector {
                nothing: self.u8()? == 1,
                expressions: self.list(Self::expression)?,
            },
        })
    }
}
