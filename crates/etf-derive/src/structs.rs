//! Structs.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{DataStruct, DeriveInput, Fields, Ident, Index, Member, Type};

use crate::attributes::{self, Shape};
use crate::{itself, visitor};

/// A field and how it travels.
pub(crate) struct Field<'a> {
    pub(crate) member: Member,
    /// A name for it while it is read.
    pub(crate) local: Ident,
    pub(crate) kind: &'a Type,
    pub(crate) key: String,
    default: bool,
}

impl Field<'_> {
    /// What it is when all pairs were read.
    pub(crate) fn value(&self) -> TokenStream {
        let (local, key) = (&self.local, &self.key);
        if self.default {
            quote!(#local.unwrap_or_default())
        } else {
            quote!(#local.ok_or_else(|| __serde::de::Error::missing_field(#key))?)
        }
    }
}

/// The bodies of `serialize` and `deserialize`.
pub(crate) fn expand(
    input: &DeriveInput,
    data: &DataStruct,
) -> syn::Result<(TokenStream, TokenStream)> {
    let shape = attributes::shape(&input.attrs, &input.ident.to_string())?;
    let named = matches!(data.fields, Fields::Named(_) | Fields::Unit);
    let fields = fields(&data.fields)?;
    match shape {
        Shape::Tuple { tag: Some(tag) } if matches!(data.fields, Fields::Unit) => {
            Ok(atom(input, &tag))
        }
        Shape::Tuple { tag } => Ok((write_tuple(&fields, tag.as_deref()), {
            let methods = read_tuple(&input.ident, &fields, tag.as_deref());
            let visitor = visitor(input, &itself(input), "a tuple", &methods);
            let len = fields.len() + usize::from(tag.is_some());
            quote!(__serde::Deserializer::deserialize_tuple(deserializer, #len, #visitor))
        })),
        _ if !named => Err(syn::Error::new_spanned(&input.ident, "keys need fields with names")),
        Shape::Keyword => Ok((write_keywords(&fields), read_map(input, &fields, None))),
        Shape::Map { binary_keys, module } => Ok((
            write_map(&fields, binary_keys, module.as_deref()),
            read_map(input, &fields, module.as_deref()),
        )),
    }
}

pub(crate) fn fields(fields: &Fields) -> syn::Result<Vec<Field<'_>>> {
    let field = |(number, field): (usize, &'_ syn::Field)| -> syn::Result<(Member, String, bool)> {
        let name = field.ident.as_ref().map_or_else(|| number.to_string(), Ident::to_string);
        let (key, default) = attributes::field(&field.attrs, &name)?;
        let member = match &field.ident {
            Some(ident) => Member::Named(ident.clone()),
            None => Member::Unnamed(Index::from(number)),
        };
        Ok((member, key, default))
    };
    let mut all = Vec::new();
    for (number, source) in fields.iter().enumerate() {
        let (member, key, default) = field((number, source))?;
        let local = format_ident!("__field{number}");
        all.push(Field { member, local, kind: &source.ty, key, default });
    }
    Ok(all)
}

/// A unit struct is an atom.
fn atom(input: &DeriveInput, tag: &str) -> (TokenStream, TokenStream) {
    let name = &input.ident;
    (
        quote!(__serde::Serialize::serialize(&__etf::Name(#tag.into()), serializer)),
        quote! {
            __serde::de::DeserializeSeed::deserialize(__etf::Tag(#tag), deserializer)?;
            ::core::result::Result::Ok(#name)
        },
    )
}

fn write_tuple(fields: &[Field<'_>], tag: Option<&str>) -> TokenStream {
    let len = fields.len() + usize::from(tag.is_some());
    let tag = tag.map(|tag| {
        quote!(__serde::ser::SerializeTuple::serialize_element(
            &mut parts,
            &__etf::Name(#tag.into()),
        )?;)
    });
    let members = fields.iter().map(|field| &field.member);
    quote! {
        let mut parts = __serde::Serializer::serialize_tuple(serializer, #len)?;
        #tag
        #(__serde::ser::SerializeTuple::serialize_element(&mut parts, &self.#members)?;)*
        __serde::ser::SerializeTuple::end(parts)
    }
}

fn read_tuple(name: &Ident, fields: &[Field<'_>], tag: Option<&str>) -> TokenStream {
    let short = quote!(__serde::de::Error::custom("a tuple is too short"));
    let tag = tag.map(|tag| {
        quote!(__serde::de::SeqAccess::next_element_seed(&mut parts, __etf::Tag(#tag))?
            .ok_or_else(|| #short)?;)
    });
    let members = fields.iter().map(|field| &field.member);
    let locals: Vec<_> = fields.iter().map(|field| &field.local).collect();
    quote! {
        fn visit_seq<__A: __serde::de::SeqAccess<'de>>(
            self,
            mut parts: __A,
        ) -> ::core::result::Result<Self::Value, __A::Error> {
            #tag
            #(let #locals = __serde::de::SeqAccess::next_element(&mut parts)?
                .ok_or_else(|| #short)?;)*
            ::core::result::Result::Ok(#name { #(#members: #locals,)* })
        }
    }
}

fn write_keywords(fields: &[Field<'_>]) -> TokenStream {
    let len = fields.len();
    let keys = fields.iter().map(|field| &field.key);
    let members = fields.iter().map(|field| &field.member);
    quote! {
        let mut parts = __serde::Serializer::serialize_seq(
            serializer,
            ::core::option::Option::Some(#len),
        )?;
        #(__serde::ser::SerializeSeq::serialize_element(
            &mut parts,
            &(__etf::Name(#keys.into()), &self.#members),
        )?;)*
        __serde::ser::SerializeSeq::end(parts)
    }
}

fn write_map(fields: &[Field<'_>], binary_keys: bool, module: Option<&str>) -> TokenStream {
    let len = fields.len() + usize::from(module.is_some());
    let module = module.map(|module| {
        quote!(__serde::ser::SerializeMap::serialize_entry(
            &mut parts,
            &__etf::Name("__struct__".into()),
            &__etf::Name(#module.into()),
        )?;)
    });
    let keys = fields.iter().map(|field| {
        let key = &field.key;
        if binary_keys { quote!(#key) } else { quote!(&__etf::Name(#key.into())) }
    });
    let members = fields.iter().map(|field| &field.member);
    quote! {
        let mut parts = __serde::Serializer::serialize_map(
            serializer,
            ::core::option::Option::Some(#len),
        )?;
        #module
        #(__serde::ser::SerializeMap::serialize_entry(&mut parts, #keys, &self.#members)?;)*
        __serde::ser::SerializeMap::end(parts)
    }
}

fn read_map(input: &DeriveInput, fields: &[Field<'_>], module: Option<&str>) -> TokenStream {
    let name = &input.ident;
    let members = fields.iter().map(|field| &field.member);
    let values = fields.iter().map(Field::value);
    let methods = visit_map(fields, module, &quote!(#name { #(#members: #values,)* }));
    let visitor = visitor(input, &itself(input), "a map or a keyword list", &methods);
    quote!(__serde::Deserializer::deserialize_map(deserializer, #visitor))
}

/// Reads pairs; `value` is made of [`Field::value`] at the end.
pub(crate) fn visit_map(
    fields: &[Field<'_>],
    module: Option<&str>,
    value: &TokenStream,
) -> TokenStream {
    let locals: Vec<_> = fields.iter().map(|field| &field.local).collect();
    let kinds = fields.iter().map(|field| field.kind);
    let keys: Vec<_> = fields.iter().map(|field| &field.key).collect();
    let check = module.map(|module| {
        quote! {
            "__struct__" => {
                __serde::de::MapAccess::next_value_seed(&mut pairs, __etf::Tag(#module))?;
                is_module = true;
            }
        }
    });
    let before = module.map(|_| quote!(let mut is_module = false;));
    let after = module.map(|module| {
        quote!(if !is_module {
            return ::core::result::Result::Err(__serde::de::Error::custom(
                ::core::concat!("a map without `__struct__`, where ", #module, " was wanted"),
            ));
        })
    });
    quote! {
        fn visit_map<__A: __serde::de::MapAccess<'de>>(
            self,
            mut pairs: __A,
        ) -> ::core::result::Result<Self::Value, __A::Error> {
            #(let mut #locals: ::core::option::Option<#kinds> = ::core::option::Option::None;)*
            #before
            while let ::core::option::Option::Some(key) =
                __serde::de::MapAccess::next_key::<__etf::Name<'de>>(&mut pairs)?
            {
                match &*key.0 {
                    #(#keys => {
                        if #locals.is_some() {
                            return ::core::result::Result::Err(
                                __serde::de::Error::duplicate_field(#keys),
                            );
                        }
                        #locals = ::core::option::Option::Some(
                            __serde::de::MapAccess::next_value(&mut pairs)?,
                        );
                    })*
                    #check
                    _ => {
                        __serde::de::MapAccess::next_value::<__serde::de::IgnoredAny>(&mut pairs)?;
                    }
                }
            }
            #after
            ::core::result::Result::Ok(#value)
        }
    }
}
