//! The client's side.

use super::{Function, Service, TokenStream, format_ident, quote};
use quote::quote_spanned;
use syn::{GenericArgument, Ident, PathArguments, Type};

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
    let Function { ident, constant, manner, arguments, output, .. } = function;
    let visibility = &service.visibility;
    let (conditions, remarks) = (function.conditions(), function.remarks());
    let (names, kinds): (Vec<_>, Vec<_>) =
        arguments.iter().map(|(name, kind)| (name, kind)).unzip();
    let idempotent = manner.idempotent.then(|| quote!(.idempotent()));
    let timeout = manner.timeout.map(|timeout| {
        let (secs, nanos) = (timeout.as_secs(), timeout.subsec_nanos());
        quote!(.timeout(::core::time::Duration::new(#secs, #nanos)))
    });
    let (how, result) = match output {
        Some(output) if !manner.cast => {
            let (value, error) = parts(output);
            let result = quote!(::core::result::Result<#value, ::meshx_rpc::CallError<#error>>);
            (quote!(call), result)
        }
        _ => (quote!(cast), quote!(::core::result::Result<(), ::meshx_rpc::Error>)),
    };
    quote_spanned! {ident.span()=>
        #(#conditions)*
        #(#remarks)*
        #visibility async fn #ident(&self, #(#names: #kinds),*) -> #result {
            ::meshx_rpc::service::#how(
                ::meshx_rpc::service::function(&self.client, #all::#constant)
                    #idempotent
                    #timeout,
                &(#(#names,)*),
            )
            .await
        }
    }
}

/// Value and error of a result: as they are written, or else as the compiler finds them.
fn parts(output: &Type) -> (TokenStream, TokenStream) {
    if let Type::Path(path) = output
        && let Some(last) = path.path.segments.last()
        && last.ident == "Result"
        && let PathArguments::AngleBracketed(arguments) = &last.arguments
        && let [GenericArgument::Type(value), GenericArgument::Type(error)] =
            &arguments.args.iter().collect::<Vec<_>>()[..]
    {
        return (quote!(#value), quote!(#error));
    }
    let of = quote!(<#output as ::meshx_rpc::service::Outcome>);
    (quote!(#of::Value), quote!(#of::Error))
}
