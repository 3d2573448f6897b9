//! `#[derive(Fields)]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Fields, LitStr};

pub(crate) fn derive(item: &DeriveInput) -> syn::Result<TokenStream> {
    let wrong = |says| syn::Error::new_spanned(&item.ident, says);
    let Data::Struct(data) = &item.data else {
        return Err(wrong("only structs are rows"));
    };
    let Fields::Named(members) = &data.fields else {
        return Err(wrong("the members of a row have names"));
    };
    let (mut names, mut paths) = (Vec::new(), Vec::new());
    for member in &members.named {
        let Some(at) = member.attrs.iter().find(|attribute| attribute.path().is_ident("at")) else {
            return Err(syn::Error::new_spanned(
                member,
                "say where it is: #[at(\".metadata.name\")]",
            ));
        };
        let path: LitStr = at.parse_args()?;
        if path.value().contains(' ') || path.value().is_empty() {
            return Err(syn::Error::new(path.span(), "one path, without spaces"));
        }
        names.push(member.ident.clone());
        paths.push(path);
    }
    let name = &item.ident;
    let all = paths.iter().map(LitStr::value).collect::<Vec<_>>().join(" ");
    let columns = 0..paths.len();
    Ok(quote! {
        impl ::sdk::fields::Fields for #name {
            const PATHS: &'static str = #all;

            fn read(row: ::sdk::columns::Row<'_>) -> ::core::result::Result<Self, ::std::string::String> {
                ::core::result::Result::Ok(Self {
                    #(#names: ::sdk::fields::member(row, #columns, #paths)?,)*
                })
            }
        }
    })
}
