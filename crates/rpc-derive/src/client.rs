//! The client's side.

use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::Ident;
use syn::spanned::Spanned;

use crate::exchange::Messages;
use crate::function::Function;
use crate::service::Service;

/// `OrdersClient`.
pub(crate) fn expand(service: &Service) -> TokenStream {
    let Service { ident, visibility, functions } = service;
    let name = format_ident!("{ident}Client");
    let about = format!("Calls the functions of [`{ident}`] elsewhere.");
    let names = format_ident!("{ident}Functions");
    let methods = functions.iter().map(|function| method(service, function, &names));
    quote! {
        #[doc = #about]
        #[derive(::core::fmt::Debug, ::core::clone::Clone)]
        #[allow(dead_code, reason = "a program may be only a server")]
        #visibility struct #name {
            client: ::meshx_rpc::Client,
        }

        #[allow(dead_code, reason = "not all functions are called everywhere")]
        #[allow(clippy::too_many_arguments, reason = "as many as the trait's")]
        impl #name {
            /// Calls them by this client.
            #visibility const fn new(client: ::meshx_rpc::Client) -> Self {
                Self { client }
            }

            #(#methods)*
        }
    }
}

fn method(service: &Service, function: &Function, all: &Ident) -> TokenStream {
    let Function { ident, constant, about, manner, arguments, .. } = function;
    let visibility = &service.visibility;
    let (conditions, remarks) = (function.conditions(), function.remarks());
    let (names, kinds): (Vec<_>, Vec<_>) =
        arguments.iter().map(|(name, kind)| (name, kind)).unzip();
    let idempotent = manner.idempotent.map(|_| quote!(.idempotent()));
    let timeout = manner.timeout.map(|timeout| {
        let (secs, nanos) = (timeout.as_secs(), timeout.subsec_nanos());
        quote!(.timeout(::core::time::Duration::new(#secs, #nanos)))
    });
    let made = quote! {
        ::meshx_rpc::service::function(&self.client, #all::#constant) #idempotent #timeout
    };
    let (parameters, result, made, does) = match &function.messages {
        // Its arguments are the server's ends: here are the others.
        Some(Messages { said, heard }) => {
            let ends = quote!((::meshx_rpc::Outgoing<#said>, ::meshx_rpc::Incoming<#heard>));
            let result = quote!(::core::result::Result<#ends, ::meshx_rpc::Error>);
            (quote!(), result, quote!(#made.open()), "Exchanges messages with")
        }
        None => {
            let (how, result) = result(function);
            let made = quote!(::meshx_rpc::service::#how(#made, &(#(#names,)*)));
            (quote!(#(#names: #kinds),*), result, made, "Calls")
        }
    };
    let about = about.is_empty().then(|| {
        let about = format!("{does} [`{}::{}`] elsewhere.", service.ident, function.plain());
        quote!(#[doc = #about])
    });
    quote_spanned! {ident.span()=>
        #(#conditions)*
        #about
        #(#remarks)*
        #visibility async fn #ident(&self, #parameters) -> #result {
            #made.await
        }
    }
}

/// How a function is called that is no exchange, and what that gives.
fn result(function: &Function) -> (TokenStream, TokenStream) {
    match &function.output {
        Some(output) if function.manner.cast.is_none() => {
            let (value, error) = match function.parts() {
                Some((value, error)) => (quote!(#value), quote!(#error)),
                // By another name: the compiler finds them.
                None => {
                    let outcome =
                        quote_spanned!(output.span()=> <#output as ::meshx_rpc::service::Outcome>);
                    (quote!(#outcome::Value), quote!(#outcome::Error))
                }
            };
            let result = quote!(::core::result::Result<#value, ::meshx_rpc::CallError<#error>>);
            (quote!(call), result)
        }
        _ => (quote!(cast), quote!(::core::result::Result<(), ::meshx_rpc::Error>)),
    }
}
