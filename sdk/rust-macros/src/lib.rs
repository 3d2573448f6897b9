//! Attribute macros that export a decision as a component.
//!
//! Each leaves the item it stands on untouched and adds a few lines that say what the SDK cannot find out by itself; the
//! work is done by ordinary generic code in `sdk`.

mod arguments;
mod fields;

use proc_macro::TokenStream;
use proc_macro2::TokenStream as Tokens;
use quote::{format_ident, quote};
use syn::{Ident, ItemFn, parse_macro_input};

use crate::arguments::Arguments;

/// `#[sdk::controller(of = "apps/v1/ReplicaSet", asks = ["get replicasets.apps", "create delete pods"])]` on
/// `fn(Subject, &View) -> sdk::Result<Outcome>`, or with a `&Request` behind. `config = "JSON schema"` or a path to a
/// constant declares `spec.config`.
#[proc_macro_attribute]
pub fn controller(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let mut arguments = parse_macro_input!(arguments as Arguments);
    let function = parse_macro_input!(item as ItemFn);
    let name = &function.sig.ident;
    let (subject, asks) = (arguments.required("of"), arguments.list("asks"));
    let schema = arguments.optional("config", quote!(""));
    let unknown = arguments.unknown(&["of", "asks", "config"]);
    let this = quote! {
        impl ::sdk::controller::Controller for This {
            const SUBJECT: &'static str = #subject;
            const ASKS: &'static [&'static str] = &[#(#asks),*];
            const CONFIG_SCHEMA: &'static str = #schema;

            fn reconcile(
                request: &::sdk::controller::Request,
                view: &::sdk::view::View,
            ) -> ::sdk::Result<::sdk::controller::Outcome> {
                ::sdk::controller::Reconcile::reconcile(&#name, request, view)
            }
        }
    };
    decision(&function, &unknown, &schema, "controller", &this)
}

/// `#[sdk::admission(on = ["create update pods"], phases = ["validating"])]` on `fn(Request<Wanted>) ->
/// sdk::Result<Answer>`, or with a `&View` behind where the rule reads the cluster (then `asks` says what). `validating` is
/// the default. `with_fields`, `with_fields_of_namespace` and `with_kinds` name what gives the rule something to say (the WIT
/// package's `occasion`): without any of it, it is not asked.
#[proc_macro_attribute]
pub fn admission(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let mut arguments = parse_macro_input!(arguments as Arguments);
    let function = parse_macro_input!(item as ItemFn);
    let name = &function.sig.ident;
    let (rules, asks) = (arguments.list("on"), arguments.list("asks"));
    let (fields, kinds) = (arguments.list("with_fields"), arguments.list("with_kinds"));
    let of_namespace = arguments.list("with_fields_of_namespace");
    let schema = arguments.optional("config", quote!(""));
    let mut phases: Vec<Ident> = Vec::new();
    for phase in arguments.list("phases") {
        match phase.value().as_str() {
            "mutating" => phases.push(format_ident!("Mutating")),
            "validating" => phases.push(format_ident!("Validating")),
            _ => {
                return syn::Error::new(phase.span(), "\"mutating\" or \"validating\"")
                    .into_compile_error()
                    .into();
            }
        }
    }
    if phases.is_empty() {
        phases.push(format_ident!("Validating"));
    }
    let unknown = arguments.unknown(&[
        "on",
        "asks",
        "config",
        "phases",
        "with_fields",
        "with_fields_of_namespace",
        "with_kinds",
    ]);
    let this = quote! {
        impl ::sdk::admission::Rule for This {
            const PHASES: &'static [::sdk::admission::Phase] = &[#(::sdk::admission::Phase::#phases),*];
            const RULES: &'static [&'static str] = &[#(#rules),*];
            const ASKS: &'static [&'static str] = &[#(#asks),*];
            const OCCASION: ::sdk::admission::Occasion = ::sdk::admission::Occasion {
                fields: &[#(#fields),*],
                of_namespace: &[#(#of_namespace),*],
                kinds: &[#(#kinds),*],
            };
            const CONFIG_SCHEMA: &'static str = #schema;
            const WANTED: (&'static str, &'static str) = ::sdk::admission::wanted(&#name);

            fn review(
                request: ::sdk::bindings::admission::exports::pilotis::admission::review::Request,
                view: &::sdk::view::View,
            ) -> ::sdk::Result<::sdk::admission::Answer> {
                ::sdk::admission::Review::review(&#name, request, view)
            }
        }
    };
    decision(&function, &unknown, &schema, "admission", &this)
}

/// A function that is what its crate is for: untouched, and for Wasm the component of its world, which `this` makes of it.
fn decision(function: &ItemFn, unknown: &Tokens, schema: &Tokens, world: &str, this: &Tokens) -> TokenStream {
    let name = &function.sig.ident;
    let (world, export) = (format_ident!("{world}"), format_ident!("export_{world}"));
    quote! {
        #function
        #unknown

        // Natively nobody calls it but tests; it is what the crate is for all the same.
        #[cfg(not(target_family = "wasm"))]
        const _: () = {
            let _ = #name;
            let _: &str = #schema;
        };

        #[cfg(target_family = "wasm")]
        const _: () = {
            struct This;

            #this

            type Component = ::sdk::#world::Exported<This>;
            ::sdk::bindings::lifecycle::export_lifecycle!(Component);
            ::sdk::bindings::#world::#export!(Component);
        };
    }
    .into()
}

/// `#[sdk::policy(filter, score, what_if, weight = 1)]` on a type that is a `sdk::scheduler::Policy`: names the points it
/// has something to say at.
#[proc_macro_attribute]
pub fn policy(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let mut arguments = parse_macro_input!(arguments as Arguments);
    let item = parse_macro_input!(item as syn::Item);
    let name = match &item {
        syn::Item::Struct(item) => item.ident.clone(),
        syn::Item::Enum(item) => item.ident.clone(),
        other => {
            return syn::Error::new_spanned(other, "stands on the type that is the policy")
                .into_compile_error()
                .into();
        }
    };
    let weight = arguments.optional("weight", quote!(1));
    let schema = arguments.optional("config", quote!(""));
    let mut exports = Vec::new();
    for point in arguments.words() {
        let export = format_ident!("export_{point}");
        match point.to_string().as_str() {
            "filter" | "score" | "what_if" => exports.push(quote!(::sdk::bindings::#point::#export!(Component);)),
            _ => {
                let says = "not an extension point of the SDK; filter, score and what_if are";
                return syn::Error::new(point.span(), says).into_compile_error().into();
            }
        }
    }
    let unknown = arguments.unknown(&["weight", "config"]);
    quote! {
        #item
        #unknown

        #[cfg(target_family = "wasm")]
        const _: () = {
            ::std::thread_local! {
                static POLICY: ::std::cell::RefCell<#name> = ::std::cell::RefCell::default();
            }

            impl ::sdk::policy::Held for #name {
                const WEIGHT: u32 = #weight;
                const CONFIG_SCHEMA: &'static str = #schema;

                fn with<R>(ask: impl FnOnce(&mut Self) -> R) -> R {
                    POLICY.with_borrow_mut(ask)
                }
            }

            type Component = ::sdk::policy::Exported<#name>;
            ::sdk::bindings::lifecycle::export_lifecycle!(Component);
            ::sdk::bindings::policy::export_policy!(Component);
            #(#exports)*
        };
    }
    .into()
}

/// Reads a struct from a row: each member has `#[at("PATH")]`. See `sdk::Fields`.
#[proc_macro_derive(Fields, attributes(at))]
pub fn fields(item: TokenStream) -> TokenStream {
    let item = parse_macro_input!(item as syn::DeriveInput);
    fields::derive(&item)
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}
