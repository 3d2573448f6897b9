//! The arguments of the attribute macros: words, `key = expression`, `key = ["list", "of texts"]`.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::parse::{Parse, ParseStream};
use syn::{Expr, ExprLit, Ident, Lit, LitStr, Token};

pub(crate) struct Arguments {
    words: Vec<Ident>,
    pairs: Vec<(Ident, Expr)>,
    errors: Vec<syn::Error>,
}

impl Parse for Arguments {
    fn parse(input: ParseStream) -> syn::Result<Self> {
        let mut arguments = Self {
            words: Vec::new(),
            pairs: Vec::new(),
            errors: Vec::new(),
        };
        while !input.is_empty() {
            let name: Ident = input.parse()?;
            if input.peek(Token![=]) {
                input.parse::<Token![=]>()?;
                arguments.pairs.push((name, input.parse()?));
            } else {
                arguments.words.push(name);
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(arguments)
    }
}

impl Arguments {
    fn get(&self, name: &str) -> Option<&Expr> {
        self.pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    pub(crate) fn required(&mut self, name: &str) -> TokenStream {
        if let Some(value) = self.get(name) {
            return value.to_token_stream();
        }
        let error = syn::Error::new(proc_macro2::Span::call_site(), format!("`{name} = …` is missing"));
        self.errors.push(error);
        quote!("")
    }

    pub(crate) fn optional(&self, name: &str, otherwise: TokenStream) -> TokenStream {
        self.get(name).map_or(otherwise, ToTokens::to_token_stream)
    }

    /// The texts of a list; empty if it is not there.
    pub(crate) fn list(&mut self, name: &str) -> Vec<LitStr> {
        let Some(value) = self.get(name) else {
            return Vec::new();
        };
        let texts = match value {
            Expr::Array(array) => array.elems.iter().map(text).collect(),
            other => text(other).map(|one| vec![one]),
        };
        texts.unwrap_or_else(|error| {
            self.errors.push(error);
            Vec::new()
        })
    }

    pub(crate) fn words(&self) -> Vec<Ident> {
        self.words.clone()
    }

    /// What went wrong so far, and arguments that nobody knows, as errors of the compiler at their places.
    pub(crate) fn unknown(&mut self, known: &[&str]) -> TokenStream {
        let strange = self
            .pairs
            .iter()
            .filter(|(key, _)| !known.iter().any(|name| key == name));
        let strange =
            strange.map(|(key, _)| syn::Error::new(key.span(), format!("unknown; one of {}", known.join(", "))));
        self.errors
            .iter()
            .cloned()
            .chain(strange)
            .map(syn::Error::into_compile_error)
            .collect()
    }
}

fn text(expression: &Expr) -> syn::Result<LitStr> {
    match expression {
        Expr::Lit(ExprLit {
            lit: Lit::Str(text), ..
        }) => Ok(text.clone()),
        other => Err(syn::Error::new_spanned(other, "a text is expected")),
    }
}
