//! Enums.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{DataEnum, DeriveInput, Fields, Variant};

use crate::structs::{Field, fields, visit_map};
use crate::{attributes, itself, visitor};

/// The bodies of `serialize` and `deserialize`.
pub(crate) fn expand(
    input: &DeriveInput,
    data: &DataEnum,
) -> syn::Result<(TokenStream, TokenStream)> {
    let name = input.ident.to_string();
    let (mut tags, mut writes, mut reads) = (Vec::new(), Vec::new(), Vec::new());
    for (number, variant) in data.variants.iter().enumerate() {
        let tag = attributes::tag(&variant.attrs, &variant.ident.to_string())?;
        if tags.contains(&tag) {
            return Err(syn::Error::new_spanned(variant, "two variants of the same name"));
        }
        let number = u32::try_from(number)
            .map_err(|_| syn::Error::new_spanned(variant, "too many variants"))?;
        writes.push(write(&name, number, variant, &tag)?);
        reads.push(read(input, variant, &tag)?);
        tags.push(tag);
    }
    let methods = quote! {
        fn visit_enum<__A: __serde::de::EnumAccess<'de>>(
            self,
            data: __A,
        ) -> ::core::result::Result<Self::Value, __A::Error> {
            let (tag, variant) = __serde::de::EnumAccess::variant::<__etf::Name<'de>>(data)?;
            match &*tag.0 {
                #(#reads)*
                other => ::core::result::Result::Err(
                    __serde::de::Error::unknown_variant(other, __VARIANTS),
                ),
            }
        }
    };
    let visitor = visitor(input, &itself(input), &format!("a {name}"), &methods);
    let read = quote! {
        const __VARIANTS: &[&str] = &[#(#tags),*];
        __serde::Deserializer::deserialize_enum(deserializer, #name, __VARIANTS, #visitor)
    };
    let write =
        if writes.is_empty() { quote!(match *self {}) } else { quote!(match self { #(#writes)* }) };
    Ok((write, read))
}

fn write(name: &str, number: u32, variant: &Variant, tag: &str) -> syn::Result<TokenStream> {
    let ident = &variant.ident;
    let fields = fields(&variant.fields)?;
    let locals = fields.iter().map(|field| &field.local);
    let locals: Vec<_> = locals.collect();
    let len = fields.len();
    Ok(match &variant.fields {
        Fields::Unit => quote! {
            Self::#ident =>
                __serde::Serializer::serialize_unit_variant(serializer, #name, #number, #tag),
        },
        Fields::Unnamed(_) if len == 1 => quote! {
            Self::#ident(value) => __serde::Serializer::serialize_newtype_variant(
                serializer, #name, #number, #tag, value,
            ),
        },
        Fields::Unnamed(_) => quote! {
            Self::#ident(#(#locals),*) => {
                let mut parts = __serde::Serializer::serialize_tuple_variant(
                    serializer, #name, #number, #tag, #len,
                )?;
                #(__serde::ser::SerializeTupleVariant::serialize_field(&mut parts, #locals)?;)*
                __serde::ser::SerializeTupleVariant::end(parts)
            }
        },
        Fields::Named(_) => {
            let members = fields.iter().map(|field| &field.member);
            let keys = fields.iter().map(|field| &field.key);
            quote! {
                Self::#ident { #(#members: #locals),* } => {
                    let mut parts = __serde::Serializer::serialize_struct_variant(
                        serializer, #name, #number, #tag, #len,
                    )?;
                    #(__serde::ser::SerializeStructVariant::serialize_field(
                        &mut parts, #keys, #locals,
                    )?;)*
                    __serde::ser::SerializeStructVariant::end(parts)
                }
            }
        }
    })
}

fn read(input: &DeriveInput, variant: &Variant, tag: &str) -> syn::Result<TokenStream> {
    let (name, ident) = (&input.ident, &variant.ident);
    let fields = fields(&variant.fields)?;
    let locals: Vec<_> = fields.iter().map(|field| &field.local).collect();
    let kinds: Vec<_> = fields.iter().map(|field| field.kind).collect();
    let len = fields.len();
    Ok(match &variant.fields {
        Fields::Unit => quote! {
            #tag => {
                __serde::de::VariantAccess::unit_variant(variant)?;
                ::core::result::Result::Ok(#name::#ident)
            }
        },
        Fields::Unnamed(_) if len == 1 => quote! {
            #tag => __serde::de::VariantAccess::newtype_variant(variant).map(#name::#ident),
        },
        Fields::Unnamed(_) => quote! {
            #tag => {
                let parts = __etf::Parts::<(#(#kinds,)*)>(::core::marker::PhantomData);
                let (#(#locals,)*) =
                    __serde::de::VariantAccess::tuple_variant(variant, #len, parts)?;
                ::core::result::Result::Ok(#name::#ident(#(#locals),*))
            }
        },
        Fields::Named(_) => {
            let members = fields.iter().map(|field| &field.member);
            let values = fields.iter().map(Field::value);
            let methods = visit_map(&fields, None, &quote!((#(#values,)*)));
            let value = quote!((#(#kinds,)*));
            let visitor = visitor(input, &value, "the fields of a variant", &methods);
            quote! {
                #tag => {
                    let (#(#locals,)*) =
                        __serde::de::VariantAccess::struct_variant(variant, &[], #visitor)?;
                    ::core::result::Result::Ok(#name::#ident { #(#members: #locals),* })
                }
            }
        }
    })
}
