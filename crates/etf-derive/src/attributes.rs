//! What `#[etf(...)]` may say.

use syn::{Attribute, LitStr};

/// The shape of a struct.
pub(crate) enum Shape {
    Tuple { tag: Option<String> },
    Map { binary_keys: bool, module: Option<String> },
    Keyword,
}

/// Of a struct: its shape, the name being what it is called in snake case.
pub(crate) fn shape(attributes: &[Attribute], name: &str) -> syn::Result<Shape> {
    let (mut map, mut binary_keys, mut keyword, mut untagged) = (false, false, false, false);
    let (mut tag, mut module) = (None, None);
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("etf")) {
        attribute.parse_nested_meta(|meta| {
            let path = &meta.path;
            if path.is_ident("map") {
                map = true;
            } else if path.is_ident("binary_keys") {
                binary_keys = true;
            } else if path.is_ident("keyword") {
                keyword = true;
            } else if path.is_ident("untagged") {
                untagged = true;
            } else if path.is_ident("tag") {
                tag = Some(meta.value()?.parse::<LitStr>()?.value());
            } else if path.is_ident("elixir") {
                let name = meta.value()?.parse::<LitStr>()?.value();
                let full = name.starts_with("Elixir.");
                module = Some(if full { name } else { format!("Elixir.{name}") });
            } else {
                return Err(meta.error(
                    "one of `tag = \"...\"`, `untagged`, `map`, `binary_keys`, `keyword`, \
                     `elixir = \"...\"`",
                ));
            }
            Ok(())
        })?;
    }
    let shapes = [map && module.is_none(), keyword, module.is_some(), untagged || tag.is_some()];
    if shapes.into_iter().filter(|chosen| *chosen).count() > 1
        || (untagged && tag.is_some())
        || (binary_keys && !map)
        || (binary_keys && module.is_some())
    {
        let message = "these attributes exclude each other, or `binary_keys` is without `map`";
        let span = attributes.iter().find(|attribute| attribute.path().is_ident("etf"));
        return Err(syn::Error::new_spanned(span, message));
    }
    Ok(if map || module.is_some() {
        Shape::Map { binary_keys, module }
    } else if keyword {
        Shape::Keyword
    } else if untagged {
        Shape::Tuple { tag: None }
    } else {
        Shape::Tuple { tag: Some(tag.unwrap_or_else(|| snake(name))) }
    })
}

/// Of a variant: its name.
pub(crate) fn tag(attributes: &[Attribute], name: &str) -> syn::Result<String> {
    let mut tag = None;
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("etf")) {
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("tag") {
                return Err(meta.error("`tag = \"...\"`"));
            }
            tag = Some(meta.value()?.parse::<LitStr>()?.value());
            Ok(())
        })?;
    }
    Ok(tag.unwrap_or_else(|| snake(name)))
}

/// Of a field: its key, and whether it may be missing.
pub(crate) fn field(attributes: &[Attribute], name: &str) -> syn::Result<(String, bool)> {
    let (mut key, mut default) = (name.trim_start_matches("r#").to_owned(), false);
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("etf")) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("rename") {
                key = meta.value()?.parse::<LitStr>()?.value();
            } else if meta.path.is_ident("default") {
                default = true;
            } else {
                return Err(meta.error("one of `rename = \"...\"`, `default`"));
            }
            Ok(())
        })?;
    }
    Ok((key, default))
}

/// `GetBalance` as `get_balance`.
fn snake(name: &str) -> String {
    let mut text = String::new();
    for (at, character) in name.trim_start_matches("r#").chars().enumerate() {
        if character.is_uppercase() && at > 0 {
            text.push('_');
        }
        text.extend(character.to_lowercase());
    }
    text
}
