//! What the WIT packages are in Rust. Imports come once; each interface that a plugin may export comes in a world of its
//! own, so that a plugin exports what it has and nothing else.
//!
//! Plugins do not use these; the macros do.
#![allow(unsafe_code, clippy::all, missing_docs, reason = "generated")]

/// All a plugin may import. What it does not call is not in the component.
pub mod host {
    wit_bindgen::generate!({
        inline: "
            package pilotis:sdk-host;
            world host {
                import pilotis:core/log@0.1.0;
                import pilotis:core/clock@0.1.0;
                import pilotis:core/random@0.1.0;
                import pilotis:cluster/view@0.1.0;
                import pilotis:cluster/metrics@0.1.0;
                import pilotis:scheduler/types@0.1.0;
            }
        ",
        path: ["../../wit/core", "../../wit/cluster", "../../wit/controller", "../../wit/scheduler"],
        world: "pilotis:sdk-host/host",
        generate_all,
        additional_derives: [PartialEq],
    });
}

/// A world that exports the named interfaces of one package, with the types that are shared taken from [`host`].
macro_rules! exporting {
    ($(#[$doc:meta])* $module:ident, $macro:literal, $at:literal, $world:literal, $wit:literal, $with:tt) => {
        $(#[$doc])*
        pub mod $module {
            wit_bindgen::generate!({
                inline: $wit,
                path: [
                    "../../wit/core", "../../wit/cluster", "../../wit/controller", "../../wit/scheduler",
                    "../../wit/admission",
                ],
                world: $world,
                pub_export_macro: true,
                export_macro_name: $macro,
                default_bindings_module: $at,
                additional_derives: [PartialEq],
                with: $with,
            });
        }
    };
}

exporting!(
    lifecycle, "export_lifecycle", "sdk::bindings::lifecycle", "pilotis:sdk-lifecycle/lifecycle",
    "package pilotis:sdk-lifecycle; world lifecycle { export pilotis:core/lifecycle@0.1.0; }",
    {
        "pilotis:core/types@0.1.0": crate::bindings::host::pilotis::core::types,
    }
);

exporting!(
    controller, "export_controller", "sdk::bindings::controller", "pilotis:sdk-controller/controller",
    "package pilotis:sdk-controller;
     world controller {
         export pilotis:controller/about@0.1.0;
         export pilotis:controller/reconcile@0.1.0;
     }",
    {
        "pilotis:core/types@0.1.0": crate::bindings::host::pilotis::core::types,
        "pilotis:cluster/view@0.1.0": crate::bindings::host::pilotis::cluster::view,
    }
);

exporting!(
    admission, "export_admission", "sdk::bindings::admission", "pilotis:sdk-admission/admission",
    "package pilotis:sdk-admission;
     world admission {
         export pilotis:admission/about@0.1.0;
         export pilotis:admission/review@0.1.0;
     }",
    {
        "pilotis:core/types@0.1.0": crate::bindings::host::pilotis::core::types,
    }
);

exporting!(
    policy, "export_policy", "sdk::bindings::policy", "pilotis:sdk-policy/policy",
    "package pilotis:sdk-policy;
     world policy {
         export pilotis:scheduler/about@0.1.0;
         export pilotis:scheduler/mirror@0.1.0;
     }",
    {
        "pilotis:core/types@0.1.0": crate::bindings::host::pilotis::core::types,
    }
);

exporting!(
    filter, "export_filter", "sdk::bindings::filter", "pilotis:sdk-filter/filter",
    "package pilotis:sdk-filter; world filter { export pilotis:scheduler/filter@0.1.0; }",
    {
        "pilotis:core/types@0.1.0": crate::bindings::host::pilotis::core::types,
        "pilotis:scheduler/types@0.1.0": crate::bindings::host::pilotis::scheduler::types,
    }
);

exporting!(
    score, "export_score", "sdk::bindings::score", "pilotis:sdk-score/score",
    "package pilotis:sdk-score; world score { export pilotis:scheduler/score@0.1.0; }",
    {
        "pilotis:core/types@0.1.0": crate::bindings::host::pilotis::core::types,
        "pilotis:scheduler/types@0.1.0": crate::bindings::host::pilotis::scheduler::types,
    }
);

exporting!(
    what_if, "export_what_if", "sdk::bindings::what_if", "pilotis:sdk-what-if/what-if",
    "package pilotis:sdk-what-if; world what-if { export pilotis:scheduler/what-if@0.1.0; }",
    {
        "pilotis:core/types@0.1.0": crate::bindings::host::pilotis::core::types,
        "pilotis:scheduler/types@0.1.0": crate::bindings::host::pilotis::scheduler::types,
    }
);
