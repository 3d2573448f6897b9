//! The one place that turns WIT into Rust: every import the host offers and every interface it knows how to call.
//!
//! One world holds them all, so that two worlds share the types that they share in WIT. No component exports all of it:
//! each exported interface is looked up by itself (`GuestIndices::new`), and what is not there is not asked.

wasmtime::component::bindgen!({
    inline: "
        package pilotis:host;

        world everything {
            import pilotis:core/log@0.1.0;
            import pilotis:core/clock@0.1.0;
            import pilotis:core/random@0.1.0;
            import pilotis:cluster/view@0.1.0;
            import pilotis:cluster/metrics@0.1.0;

            export pilotis:core/lifecycle@0.1.0;
            export pilotis:controller/about@0.1.0;
            export pilotis:controller/reconcile@0.1.0;
            export pilotis:scheduler/about@0.1.0;
            export pilotis:scheduler/mirror@0.1.0;
            export pilotis:scheduler/pre-enqueue@0.1.0;
            export pilotis:scheduler/filter@0.1.0;
            export pilotis:scheduler/score@0.1.0;
            export pilotis:scheduler/place@0.1.0;
            export pilotis:scheduler/what-if@0.1.0;
            export pilotis:scheduler/permit@0.1.0;
            export pilotis:scheduler/queueing-hint@0.1.0;
            export pilotis:scheduler/queue-sort@0.1.0;
            export pilotis:admission/about@0.1.0;
            export pilotis:admission/review@0.1.0;
        }
    ",
    path: ["../../wit/core", "../../wit/cluster", "../../wit/controller", "../../wit/scheduler", "../../wit/admission"],
    world: "pilotis:host/everything",
    imports: {
        "pilotis:cluster/view.get-live": async | trappable,
        "pilotis:cluster/metrics.sample": async | trappable,
        default: trappable,
    },
    exports: { default: async },
    additional_derives: [PartialEq],
});
