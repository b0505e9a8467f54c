//! The server's side.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Ident, Type};

use crate::exchange::Messages;
use crate::function::Function;
use crate::service::Service;

/// `OrdersFunctions`.
pub(crate) fn expand(service: &Service) -> TokenStream {
    let Service { ident, visibility, functions } = service;
    let name = format_ident!("{ident}Functions");
    let about = format!("The functions of [`{ident}`] by name, as a server offers them.");
    let about_all = "All names, in the order of the trait.";
    let about_of = format!(
        "What can be called of this service: the functions of [`{ident}`], and nothing else."
    );
    let constants = functions.iter().map(|function| constant(service, function));
    let names = functions.iter().map(|function| {
        let (conditions, constant) = (function.conditions(), &function.constant);
        quote!(#(#conditions)* Self::#constant)
    });
    // Arguments may have any name: these are not seen by them.
    let own = Ident::new("service", Span::mixed_site());
    let all = Ident::new("functions", Span::mixed_site());
    let additions = functions.iter().map(|function| addition(ident, function, &own, &all));
    let travels = functions.iter().map(travels);
    quote! {
        // What it says comes first.
        const _: fn() = || { #(#travels)* };

        #[doc = #about]
        #[derive(::core::fmt::Debug, ::core::clone::Clone, ::core::marker::Copy)]
        #[allow(dead_code, reason = "a program may be only a client")]
        #visibility struct #name;

        #[allow(dead_code, non_upper_case_globals, reason = "not all names are needed everywhere")]
        impl #name {
            #(#constants)*

            #[doc = #about_all]
            #visibility const fn names() -> &'static [&'static ::core::primitive::str] {
                &[#(#names),*]
            }

            #[doc = #about_of]
            #[allow(deprecated, reason = "what is deprecated is still served")]
            #visibility fn of<__S: #ident>(
                #own: ::meshx_rpc::service::Arc<__S>,
            ) -> ::meshx_rpc::Functions {
                let #all = ::meshx_rpc::Functions::new();
                #(#additions)*
                ::core::mem::drop(#own);
                #all
            }
        }
    }
}

/// The name of a function.
fn constant(service: &Service, function: &Function) -> TokenStream {
    let visibility = &service.visibility;
    let Function { constant, name, .. } = function;
    let conditions = function.conditions();
    let about = format!("The name of [`{}::{}`].", service.ident, function.plain());
    quote! {
        #(#conditions)*
        #[doc = #about]
        #visibility const #constant: &'static ::core::primitive::str = #name;
    }
}

/// Adds one function.
fn addition(trait_ident: &Ident, function: &Function, own: &Ident, all: &Ident) -> TokenStream {
    let Function { ident, constant, about, arguments, messages, output, .. } = function;
    let conditions = function.conditions();
    let names: Vec<_> = arguments.iter().map(|(name, _)| name).collect();
    let kinds: Vec<_> = arguments.iter().map(|(_, kind)| kind).collect();
    let (add, parameters) = match messages {
        Some(_) => (quote!(add_exchange), quote!(#(#names: #kinds),*)),
        None => (quote!(add), quote!((#(#names,)*): (#(#kinds,)*))),
    };
    let running = quote!(<__S as #trait_ident>::#ident(&#own, #(#names),*).await);
    let running = match output {
        Some(_) => running,
        None => quote!({
            #running;
            ::core::result::Result::Ok::<(), ::meshx_rpc::Error>(())
        }),
    };
    let about = (!about.is_empty()).then(|| quote!(.about(Self::#constant, #about)));
    // What the compiler says of types is said of this function.
    quote_spanned! {ident.span()=>
        #(#conditions)*
        let #all = {
            let #own = ::core::clone::Clone::clone(&#own);
            #all.#add(Self::#constant, move |#parameters| {
                let #own = ::core::clone::Clone::clone(&#own);
                async move { #running }
            })
            #about
        };
    }
}

/// Has the compiler complain of types where they are written.
fn travels(function: &Function) -> TokenStream {
    let conditions = function.conditions();
    let of = |check: &str, kind: &Type| {
        let check = Ident::new(check, Span::call_site());
        quote_spanned!(kind.span()=> ::meshx_rpc::service::#check::<#kind>();)
    };
    let (travelling, outcome, failure): (Vec<_>, _, _) = match &function.messages {
        Some(Messages { said, heard }) => (vec![said, heard], "ending", "reason"),
        None => {
            let kinds = function.arguments.iter().map(|(_, kind)| kind);
            (kinds.collect(), "outcome", "failure")
        }
    };
    let arguments = travelling.into_iter().map(|kind| of("argument", kind));
    let output = function.output.iter().map(|kind| of(outcome, kind));
    let parts = function.parts().map(|(value, error)| {
        let (value, error) = (of("value", value), of(failure, error));
        quote!(#value #error)
    });
    quote!(#(#conditions)* { #(#arguments)* #(#output)* #parts })
}
