//! Types that can travel.

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::Type;

/// Refuses what no value from elsewhere can have, at any depth of the type.
pub(crate) fn check(kind: &Type) -> syn::Result<()> {
    walk(kind.to_token_stream())
}

fn walk(tokens: TokenStream) -> syn::Result<()> {
    let mut tokens = tokens.into_iter();
    while let Some(token) = tokens.next() {
        let message = match &token {
            TokenTree::Group(group) => {
                walk(group.stream())?;
                continue;
            }
            TokenTree::Punct(mark) if mark.as_char() == '&' => {
                "what travels is owned: no reference"
            }
            TokenTree::Punct(mark) if mark.as_char() == '\'' => {
                let name = tokens.next();
                if matches!(&name, Some(TokenTree::Ident(name)) if name == "static") {
                    continue;
                }
                let lifetime: TokenStream = [Some(token), name].into_iter().flatten().collect();
                let message = "what travels is owned: no lifetime";
                return Err(syn::Error::new_spanned(lifetime, message));
            }
            TokenTree::Ident(word) if word == "impl" || word == "dyn" => {
                "what travels has a type that both sides know"
            }
            TokenTree::Ident(word) if word == "Self" => {
                "`Self` is not the same at both sides: name the type"
            }
            _ => continue,
        };
        return Err(syn::Error::new_spanned(token, message));
    }
    Ok(())
}
