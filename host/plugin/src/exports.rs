//! Which of the known interfaces a component exports: looked up once a revision, bound once an instance.

use wasmtime::Store;
use wasmtime::component::{Instance, InstancePre};

use crate::bindings::exports::pilotis::{admission, controller, core, scheduler};
use crate::state::State;

/// Writes the same list three times: names, look-ups and bound functions.
macro_rules! interfaces {
    ($($field:ident: $module:ident = $name:literal,)*) => {
        /// Where in the component each known interface is, if it is there.
        #[derive(Clone)]
        pub(crate) struct Indices {
            $(pub(crate) $field: Option<$module::GuestIndices>,)*
        }

        /// The same, bound to one instance.
        pub(crate) struct Exports {
            $(pub(crate) $field: Option<$module::Guest>,)*
        }

        impl Indices {
            pub(crate) fn find(pre: &InstancePre<State>) -> Self {
                Self { $($field: $module::GuestIndices::new(pre).ok(),)* }
            }

            /// Names without versions, in the order of this list.
            pub(crate) fn names(&self) -> Vec<&'static str> {
                let mut names = Vec::new();
                $(if self.$field.is_some() { names.push($name); })*
                names
            }
        }

        impl Exports {
            pub(crate) fn load(found: &Indices, store: &mut Store<State>, of: &Instance) -> wasmtime::Result<Self> {
                Ok(Self { $($field: found.$field.as_ref().map(|at| at.load(&mut *store, of)).transpose()?,)* })
            }
        }
    };
}

use admission::{about as admission_about, review};
use controller::{about as controller_about, reconcile};
use core::lifecycle;
use scheduler::{
    about as policy_about, filter, mirror, permit, place, pre_enqueue, queue_sort, queueing_hint, score, what_if,
};

interfaces! {
    lifecycle: lifecycle = "pilotis:core/lifecycle",
    controller_about: controller_about = "pilotis:controller/about",
    reconcile: reconcile = "pilotis:controller/reconcile",
    policy_about: policy_about = "pilotis:scheduler/about",
    mirror: mirror = "pilotis:scheduler/mirror",
    pre_enqueue: pre_enqueue = "pilotis:scheduler/pre-enqueue",
    filter: filter = "pilotis:scheduler/filter",
    score: score = "pilotis:scheduler/score",
    place: place = "pilotis:scheduler/place",
    what_if: what_if = "pilotis:scheduler/what-if",
    permit: permit = "pilotis:scheduler/permit",
    queueing_hint: queueing_hint = "pilotis:scheduler/queueing-hint",
    queue_sort: queue_sort = "pilotis:scheduler/queue-sort",
    admission_about: admission_about = "pilotis:admission/about",
    review: review = "pilotis:admission/review",
}
