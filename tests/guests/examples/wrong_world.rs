//! A sound component of a world nobody here knows.
#![allow(unsafe_code, reason = "bindings are generated")]

#[cfg(target_family = "wasm")]
mod world {
    wit_bindgen::generate!({
        inline: "
            package elsewhere:greetings@1.0.0;
            interface greet { greet: func(name: string) -> string; }
            world greeter { export greet; }
        ",
    });

    struct Greeter;

    impl exports::elsewhere::greetings::greet::Guest for Greeter {
        fn greet(name: String) -> String {
            format!("hello {name}")
        }
    }

    export!(Greeter);
}
