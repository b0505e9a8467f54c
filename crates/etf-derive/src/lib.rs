//! `#[derive(Etf)]`; documented where it is exported, in `meshx-etf`.

mod attributes;
mod enums;
mod structs;

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, parse_macro_input};

/// Implements serde's `Serialize` and `Deserialize` in a shape that Erlang and Elixir programs like.
///
/// A struct is, by the attribute `#[etf(...)]` on it:
///
/// | attribute | shape |
/// |---|---|
/// | none | a tuple with the name in front: `{get_balance, Id}`; a unit struct is an atom |
/// | `tag = "account"` | the same with another name: what Erlang calls a record |
/// | `untagged` | a tuple of the fields alone |
/// | `map` | a map with atoms as keys |
/// | `map, binary_keys` | a map with binaries as keys |
/// | `keyword` | a keyword list: `[{name, V}, ...]` |
/// | `elixir = "MyApp.User"` | a map with `'__struct__'`, which must be there and be that one |
///
/// A variant of an enum is an atom, or `{name, V}`, `{name, A, B}`, `{name, #{field => V}}`;
/// `#[etf(tag = "error")]` on it gives it another name. Names are in snake case unless given.
///
/// On a field of a shape with keys: `#[etf(rename = "key")]`, and `#[etf(default)]` for
/// `Default::default()` where the key is missing; keys that are not known are ignored. A field of
/// type `Option` that is missing must be marked so too.
///
/// Types may have lifetimes, which are borrowed from the input, and type parameters.
///
/// ```
/// use meshx_etf::{Atom, Etf, from_term, term, to_term};
///
/// #[derive(Etf, Debug, PartialEq)]
/// struct GetBalance { id: u64 }
///
/// #[derive(Etf, Debug, PartialEq)]
/// #[etf(elixir = "MyApp.User")]
/// struct User { name: String, #[etf(default)] age: Option<u8> }
///
/// #[derive(Etf, Debug, PartialEq)]
/// enum Reply { Ok(i64), #[etf(tag = "error")] Failed(Atom), NotFound }
///
/// assert_eq!(to_term(&GetBalance { id: 7 })?, term!({get_balance, 7}));
/// let user = term!(#{__struct__ => atom "Elixir.MyApp.User", name => "Ann"});
/// assert_eq!(from_term::<User>(&user)?, User { name: "Ann".into(), age: None });
/// assert_eq!(from_term::<Reply>(&term!({error, busy}))?, Reply::Failed("busy".parse()?));
/// assert_eq!(to_term(&Reply::NotFound)?, term!(not_found));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[proc_macro_derive(Etf, attributes(etf))]
pub fn derive_etf(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    expand(&input).unwrap_or_else(|error| error.to_compile_error()).into()
}

fn expand(input: &DeriveInput) -> syn::Result<TokenStream> {
    let (write, read) = match &input.data {
        Data::Struct(data) => structs::expand(input, data)?,
        Data::Enum(data) => enums::expand(input, data)?,
        Data::Union(_) => {
            return Err(syn::Error::new_spanned(&input.ident, "a union has no shape"));
        }
    };
    let name = &input.ident;
    let (_, types, _) = input.generics.split_for_impl();
    let writing = bounded(&input.generics, &quote!(__serde::Serialize), false);
    let (write_generics, _, write_where) = writing.split_for_impl();
    let reading = bounded(&input.generics, &quote!(__serde::Deserialize<'de>), true);
    let (read_generics, _, read_where) = reading.split_for_impl();
    Ok(quote! {
        const _: () = {
            use ::meshx_etf::typed::private as __etf;
            use ::meshx_etf::typed::private::serde as __serde;

            #[automatically_derived]
            impl #write_generics __serde::Serialize for #name #types #write_where {
                fn serialize<__S: __serde::Serializer>(
                    &self,
                    serializer: __S,
                ) -> ::core::result::Result<__S::Ok, __S::Error> {
                    #write
                }
            }

            #[automatically_derived]
            impl #read_generics __serde::Deserialize<'de> for #name #types #read_where {
                fn deserialize<__D: __serde::Deserializer<'de>>(
                    deserializer: __D,
                ) -> ::core::result::Result<Self, __D::Error> {
                    #read
                }
            }
        };
    })
}

/// The generics with a bound on every type parameter; for reading also with the input's lifetime,
/// which outlives all others.
fn bounded(generics: &syn::Generics, bound: &TokenStream, reading: bool) -> syn::Generics {
    let mut generics = generics.clone();
    for parameter in generics.type_params_mut() {
        parameter.bounds.push(syn::parse_quote!(#bound));
    }
    if reading {
        let lifetimes: Vec<_> = generics.lifetimes().map(|l| l.lifetime.clone()).collect();
        generics.params.insert(0, syn::parse_quote!('de));
        let clause = generics.make_where_clause();
        for lifetime in lifetimes {
            clause.predicates.push(syn::parse_quote!('de: #lifetime));
        }
    }
    generics
}

/// The type itself.
fn itself(input: &DeriveInput) -> TokenStream {
    let name = &input.ident;
    let (_, types, _) = input.generics.split_for_impl();
    quote!(#name #types)
}

/// A visitor that makes a `value`, as an expression; `methods` are those of `Visitor`.
fn visitor(
    input: &DeriveInput,
    value: &TokenStream,
    wanted: &str,
    methods: &TokenStream,
) -> TokenStream {
    let name = itself(input);
    let reading = bounded(&input.generics, &quote!(__serde::Deserialize<'de>), true);
    let (impl_generics, all_types, clause) = reading.split_for_impl();
    quote! {{
        struct __Visitor #impl_generics (
            ::core::marker::PhantomData<(&'de (), #name)>,
        ) #clause;

        impl #impl_generics __serde::de::Visitor<'de> for __Visitor #all_types #clause {
            type Value = #value;

            fn expecting(
                &self,
                formatter: &mut ::core::fmt::Formatter<'_>,
            ) -> ::core::fmt::Result {
                formatter.write_str(#wanted)
            }

            #methods
        }

        __Visitor(::core::marker::PhantomData)
    }}
}
