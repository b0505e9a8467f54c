//! The trait as it was written.

use proc_macro2::{Span, TokenStream};
use quote::quote_spanned;
use syn::spanned::Spanned;
use syn::{Ident, ItemTrait, TraitItem, TraitItemFn, Visibility, parse_quote};

use crate::attributes;
use crate::function::Function;

/// A trait that is a service.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) ident: Ident,
    pub(crate) visibility: Visibility,
    pub(crate) functions: Vec<Function>,
}

impl Service {
    /// Reads the trait, and leaves one that the compiler takes as it is. All errors come together.
    pub(crate) fn read(attribute: TokenStream, item: &mut ItemTrait) -> syn::Result<Self> {
        let mut errors = Errors::default();
        let name = errors.unless(attributes::name(attribute)).flatten();
        errors.unless(plain(item));
        let mut functions = Vec::new();
        for part in &mut item.items {
            let TraitItem::Fn(function) = part else {
                let message = "a service has functions only";
                errors.add(syn::Error::new_spanned(part, message));
                continue;
            };
            let Some(manner) = errors.unless(attributes::take(&mut function.attrs)) else {
                continue;
            };
            match manner.skip {
                Some(span) => {
                    errors.unless(skipped(function, span));
                }
                None => {
                    let read = Function::read(function, manner, name.as_deref());
                    functions.extend(errors.unless(read));
                }
            }
            desugar(function);
        }
        item.colon_token.get_or_insert_default();
        item.supertraits.push(parse_quote!(::core::marker::Send));
        item.supertraits.push(parse_quote!(::core::marker::Sync));
        item.supertraits.push(parse_quote!('static));
        let service = Self { ident: item.ident.clone(), visibility: item.vis.clone(), functions };
        errors.0.map_or(Ok(service), Err)
    }
}

/// What the trait itself may not have.
fn plain(item: &ItemTrait) -> syn::Result<()> {
    let generics = &item.generics;
    let spoken = "a service has no generics: what is called by name from elsewhere has one type";
    if !generics.params.is_empty() {
        return Err(syn::Error::new_spanned(generics, spoken));
    }
    if let Some(clause) = &generics.where_clause {
        return Err(syn::Error::new_spanned(clause, spoken));
    }
    if let Some(token) = &item.unsafety {
        return Err(syn::Error::new_spanned(token, "a service is a safe trait"));
    }
    Ok(())
}

/// A function that is none of the service.
fn skipped(function: &TraitItemFn, span: Span) -> syn::Result<()> {
    if function.default.is_some() {
        return Ok(());
    }
    Err(syn::Error::new(span, "what is skipped has a body"))
}

/// `async fn f() -> T` as `fn f() -> impl Future<Output = T> + Send`.
fn desugar(function: &mut TraitItemFn) {
    if function.sig.asyncness.take().is_none() {
        return;
    }
    let output = match &function.sig.output {
        syn::ReturnType::Type(_, output) => parse_quote!(#output),
        syn::ReturnType::Default => parse_quote!(()),
    };
    let output: syn::Type = output;
    let span = function.sig.ident.span();
    let future = quote_spanned!(span=>
        -> impl ::core::future::Future<Output = #output> + ::core::marker::Send
    );
    function.sig.output = parse_quote!(#future);
    if let Some(body) = &function.default {
        let body = quote_spanned!(body.span()=> { async move #body });
        function.default = Some(parse_quote!(#body));
    }
}

/// Errors so far.
#[derive(Default)]
struct Errors(Option<syn::Error>);

impl Errors {
    fn add(&mut self, error: syn::Error) {
        match &mut self.0 {
            Some(all) => all.combine(error),
            None => self.0 = Some(error),
        }
    }

    fn unless<T>(&mut self, result: syn::Result<T>) -> Option<T> {
        result.map_err(|error| self.add(error)).ok()
    }
}
