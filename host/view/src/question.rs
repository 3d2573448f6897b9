//! Standing questions: asked once, kept up to date change by change.

use std::sync::Arc;

use model::{Failure, FieldValue, Object};
use serde::{Deserialize, Serialize};

use crate::changes::Log;
use crate::fields::Wanted;
use crate::member::Members;
use crate::order::{Order, Ranked, SortKey};
use crate::selection::{Chosen, Selection};
use crate::tally::Tally;

/// A question about one kind, as text: equal texts are one standing question, whoever asks.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ask {
    pub which: Selection,
    pub what: What,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum What {
    Find { fields: String, order: String },
    Tally { by: String, sums: String },
    Distinct { by: String },
    Changes { fields: String },
}

/// A parsed [`Ask`].
pub(crate) struct Question {
    pub(crate) ask: Ask,
    pub(crate) chosen: Chosen,
    pub(crate) form: Form,
    /// For "why did this run?".
    pub(crate) text: Arc<str>,
}

pub(crate) enum Form {
    Find {
        wanted: Arc<Wanted>,
        order: Order,
    },
    /// `None`: which groups there are is the whole answer.
    Tally {
        by: Arc<Wanted>,
        sums: Option<Arc<Wanted>>,
    },
    Changes {
        wanted: Arc<Wanted>,
    },
}

/// What is kept for a question. Cheap to clone and to change while clones exist.
#[derive(Clone)]
pub(crate) enum Kept {
    /// Nothing: an index or the kind itself answers in name order.
    Nothing,
    Order(imbl::OrdSet<Ranked>),
    Tally(Tally),
    Log(Log),
}

/// What one change did to an answer.
pub(crate) struct Effect {
    /// The whole answer is another.
    pub(crate) changed: bool,
    /// For `find`: where the object was and is, and whether it passed another on the way.
    pub(crate) was: Option<SortKey>,
    pub(crate) is: Option<SortKey>,
}

impl Question {
    pub(crate) fn parse(ask: &Ask) -> Result<Self, Failure> {
        let (form, text) = match &ask.what {
            What::Find { fields, order } => {
                let form = Form::Find {
                    wanted: Wanted::parse(fields)?,
                    order: Order::parse(order)?,
                };
                (form, format!("find {}: {fields}", ask.which))
            }
            What::Tally { by, sums } => {
                let form = Form::Tally {
                    by: Wanted::parse(by)?,
                    sums: Some(Wanted::parse(sums)?),
                };
                (form, format!("tally {} by {by} {sums}", ask.which))
            }
            What::Distinct { by } => {
                let form = Form::Tally {
                    by: Wanted::parse(by)?,
                    sums: None,
                };
                (form, format!("distinct {}: {by}", ask.which))
            }
            What::Changes { fields } => (
                Form::Changes {
                    wanted: Wanted::parse(fields)?,
                },
                format!("changes {}: {fields}", ask.which),
            ),
        };
        Ok(Self {
            ask: ask.clone(),
            chosen: Chosen::parse(&ask.which)?,
            form,
            text: text.into(),
        })
    }

    /// From all that is selected, in name order, as of the change numbered `seq`.
    pub(crate) fn build<'a>(&self, selected: impl Iterator<Item = &'a Arc<Object>>, seq: u64) -> Kept {
        match &self.form {
            Form::Find { order, .. } if order.is_empty() => Kept::Nothing,
            Form::Find { order, .. } => {
                let ranked = selected.map(|object| Ranked {
                    key: order.key(object),
                    object: object.clone(),
                });
                Kept::Order(ranked.collect())
            }
            Form::Tally { by, sums } => {
                let mut tally = Tally::default();
                for object in selected {
                    tally.add(Tally::share(by, sums.as_deref(), object), 1);
                }
                Kept::Tally(tally)
            }
            Form::Changes { .. } => Kept::Log(Log::build(selected, seq)),
        }
    }

    /// `old` and `new` as far as they are selected; at least one is. They have the same name and uid.
    pub(crate) fn update(
        &self,
        kept: &mut Kept,
        old: Option<&Arc<Object>>,
        new: Option<&Arc<Object>>,
        seq: u64,
    ) -> Effect {
        match (&self.form, kept) {
            (Form::Find { wanted, order }, kept) => {
                let was = old.map(|object| order.key(object));
                let is = new.map(|object| order.key(object));
                let moved = match kept {
                    Kept::Order(set) => place(set, old.zip(was.as_ref()), new.zip(is.as_ref())),
                    _ => false,
                };
                let changed = moved
                    || match (old, new) {
                        (Some(old), Some(new)) => !wanted.same(old, new),
                        _ => true,
                    };
                Effect { changed, was, is }
            }
            (Form::Tally { by, sums }, Kept::Tally(tally)) => {
                let share = |object: &Arc<Object>| Tally::share(by, sums.as_deref(), object);
                let (was, is) = (old.map(share), new.map(share));
                let mut changed = false;
                if was != is {
                    let went = was.is_some_and(|share| tally.add(share, -1));
                    let came = is.is_some_and(|share| tally.add(share, 1));
                    changed = sums.is_some() || went || came;
                }
                Effect {
                    changed,
                    was: None,
                    is: None,
                }
            }
            (Form::Changes { wanted }, Kept::Log(log)) => {
                let changed = match (old, new) {
                    (Some(old), Some(new)) => !wanted.same(old, new),
                    _ => true,
                };
                log.update(old, new, changed.then_some(seq));
                Effect {
                    changed,
                    was: None,
                    is: None,
                }
            }
            (Form::Tally { .. } | Form::Changes { .. }, _) => {
                unreachable!("built by this question")
            }
        }
    }
}

/// Puts the new revision in its place in the order. Whether it passed another object on the way.
fn place(
    set: &mut imbl::OrdSet<Ranked>,
    old: Option<(&Arc<Object>, &SortKey)>,
    new: Option<(&Arc<Object>, &SortKey)>,
) -> bool {
    let ranked = |(object, key): (&Arc<Object>, &SortKey)| Ranked {
        key: key.clone(),
        object: object.clone(),
    };
    let was = old.map(ranked);
    if let Some(was) = &was {
        set.remove(was);
    }
    let Some(is) = new.map(ranked) else {
        return true;
    };
    let moved = was.is_none_or(|was| {
        let before = |at: &Ranked| set.get_prev(at).map(|ranked| Arc::as_ptr(&ranked.object));
        was.key != is.key && before(&was) != before(&is)
    });
    set.insert(is);
    moved
}

/// The first `limit` (0: all) and, if that is not all, where the last of them stands.
pub(crate) fn find(
    wanted: &Wanted,
    order: &Order,
    found: impl Iterator<Item = Arc<Object>>,
    limit: u32,
) -> (bytes::Bytes, Option<Ranked>) {
    let mut packer = crate::columns::Packer::new(wanted.columns());
    let mut last = None;
    for object in found {
        packer.row(wanted.row(&object).iter().map(shorter));
        if limit != 0 && packer.rows() == limit as usize {
            last = Some(Ranked {
                key: order.key(&object),
                object,
            });
            break;
        }
    }
    (packer.finish(), last)
}

/// Lets a `'static`-or-longer value stand where one borrowed for a moment is wanted.
fn shorter<'short, 'long: 'short>(value: &'short FieldValue<'long>) -> &'short FieldValue<'short> {
    value
}

/// What `members` has of the selection, in name order.
pub(crate) fn select<'a>(
    chosen: &'a Chosen,
    members: &'a Members,
    anchored: bool,
) -> impl Iterator<Item = &'a Arc<Object>> {
    crate::member::within(members, &chosen.namespace).filter(move |object| {
        if anchored {
            chosen.selects_anchored(object)
        } else {
            chosen.selects(object)
        }
    })
}
