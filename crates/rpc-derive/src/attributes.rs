//! What `#[service(...)]` and `#[rpc(...)]` may say.

use std::time::Duration;

use proc_macro2::{Span, TokenStream};
use syn::meta::ParseNestedMeta;
use syn::parse::Parser;
use syn::spanned::Spanned;
use syn::{Attribute, LitStr};

/// Of a function.
#[derive(Debug, Default)]
pub(crate) struct Manner {
    /// Where it is said that it may run more than once.
    pub(crate) idempotent: Option<Span>,
    /// Where it is said that its caller does not wait.
    pub(crate) cast: Option<Span>,
    pub(crate) timeout: Option<Duration>,
    /// Where it is said that the function is not one of the service.
    pub(crate) skip: Option<Span>,
}

/// Of a service: what its functions' names begin with.
pub(crate) fn name(attribute: TokenStream) -> syn::Result<Option<String>> {
    let mut name = None;
    let parser = syn::meta::parser(|meta| {
        if !meta.path.is_ident("name") {
            return Err(meta.error("`name = \"...\"`"));
        }
        once(&meta, name.is_none())?;
        let text: LitStr = meta.value()?.parse()?;
        check(&text)?;
        name = Some(text.value());
        Ok(())
    });
    parser.parse2(attribute)?;
    Ok(name)
}

/// Takes `#[rpc(...)]` off a function.
pub(crate) fn take(attributes: &mut Vec<Attribute>) -> syn::Result<Manner> {
    let ours = attributes.extract_if(.., |attribute| attribute.path().is_ident("rpc"));
    let mut manner = Manner::default();
    for attribute in ours.collect::<Vec<_>>() {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("idempotent") {
                once(&meta, manner.idempotent.is_none())?;
                manner.idempotent = Some(meta.path.span());
            } else if meta.path.is_ident("cast") {
                once(&meta, manner.cast.is_none())?;
                manner.cast = Some(meta.path.span());
            } else if meta.path.is_ident("skip") {
                once(&meta, manner.skip.is_none())?;
                manner.skip = Some(meta.path.span());
            } else if meta.path.is_ident("timeout") {
                once(&meta, manner.timeout.is_none())?;
                manner.timeout = Some(duration(&meta.value()?.parse()?)?);
            } else {
                return Err(meta.error("one of `idempotent`, `cast`, `timeout = \"...\"`, `skip`"));
            }
            Ok(())
        })?;
    }
    let says_more =
        manner.idempotent.is_some() || manner.cast.is_some() || manner.timeout.is_some();
    match manner.skip {
        Some(span) if says_more => {
            Err(syn::Error::new(span, "nothing else can be said of a function that is skipped"))
        }
        _ => Ok(manner),
    }
}

/// The text of doc comments, as it was written.
pub(crate) fn docs(attributes: &[Attribute]) -> String {
    let lines = attributes.iter().filter_map(|attribute| {
        let meta = attribute.meta.require_name_value().ok()?;
        let syn::Expr::Lit(literal) = &meta.value else { return None };
        let syn::Lit::Str(text) = &literal.lit else { return None };
        attribute.path().is_ident("doc").then(|| text.value())
    });
    let text = lines.collect::<Vec<_>>().join("\n");
    let lines = text.lines().map(|line| line.strip_prefix(' ').unwrap_or(line));
    lines.collect::<Vec<_>>().join("\n").trim().to_owned()
}

fn once(meta: &ParseNestedMeta<'_>, is_first: bool) -> syn::Result<()> {
    if is_first { Ok(()) } else { Err(meta.error("this was said already")) }
}

/// A policy has patterns with `*`, and people write names at terminals.
fn check(name: &LitStr) -> syn::Result<()> {
    let legal = |c: char| !c.is_whitespace() && !c.is_control() && c != '*';
    let text = name.value();
    if !text.is_empty() && text.chars().all(legal) {
        return Ok(());
    }
    Err(syn::Error::new(name.span(), "a name has some characters; no blanks, and no `*`"))
}

/// `250ms`, as the command line takes them.
fn duration(text: &LitStr) -> syn::Result<Duration> {
    let wrong =
        || syn::Error::new(text.span(), "a time that is not 0: 500us, 250ms, 10s, 2m or 1h");
    let value = text.value();
    let digits = value.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u32 = digits.parse().map_err(|_| wrong())?;
    let number = u64::from(number);
    let duration = match value.strip_prefix(digits) {
        Some("us") => Duration::from_micros(number),
        Some("ms") => Duration::from_millis(number),
        Some("s") => Duration::from_secs(number),
        Some("m") => Duration::from_secs(number * 60),
        Some("h") => Duration::from_secs(number * 3600),
        _ => return Err(wrong()),
    };
    if duration.is_zero() { Err(wrong()) } else { Ok(duration) }
}
