//! A function of the trait.

use proc_macro2::Span;
use syn::spanned::Spanned;
use syn::{
    Attribute, FnArg, GenericArgument, Ident, Pat, PathArguments, ReturnType, Signature,
    TraitItemFn, Type,
};

use crate::attributes::{self, Manner};
use crate::exchange::{self, Messages};
use crate::owned;

/// serde reads tuples of up to so many.
const ARGUMENTS_MAX: usize = 16;
/// `meshx_rpc::NAME_MAX`.
const NAME_MAX: usize = 255;

/// A function that can be called.
#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) ident: Ident,
    /// What the constant of its name is called.
    pub(crate) constant: Ident,
    /// As it goes over the wire.
    pub(crate) name: String,
    /// What it is for; empty if that was not said.
    pub(crate) about: String,
    pub(crate) manner: Manner,
    pub(crate) arguments: Vec<(Ident, Type)>,
    /// Those of an exchange.
    pub(crate) messages: Option<Messages>,
    /// What it gives; of a cast that is perhaps nothing.
    pub(crate) output: Option<Type>,
    attributes: Vec<Attribute>,
}

impl Function {
    /// Reads one that is not skipped.
    pub(crate) fn read(
        function: &TraitItemFn,
        manner: Manner,
        service: Option<&str>,
    ) -> syn::Result<Self> {
        let signature = &function.sig;
        let ident = signature.ident.clone();
        shape(signature)?;
        let arguments = arguments(signature)?;
        let messages = Messages::read(&arguments)?;
        let output = output(signature, manner.cast.is_some(), messages.is_some())?;
        if messages.is_some() {
            let value = output.as_ref().and_then(parts).map(|(value, _)| value);
            exchange::check(&manner, value)?;
        }
        let plain = unmarked(&ident);
        let name = service.map_or_else(|| plain.clone(), |it| format!("{it}.{plain}"));
        let wrong = |message| Err(syn::Error::new(ident.span(), message));
        if name.len() > NAME_MAX {
            return wrong("its name is longer than 255 bytes, with that of the service");
        }
        if plain == "new" {
            return wrong("`new` makes the client: it needs another name");
        }
        let ident = ours(&ident);
        let constant = Ident::new(&plain.to_uppercase(), ident.span());
        let about = attributes::docs(&function.attrs);
        let attributes = function.attrs.clone();
        Ok(Self { ident, constant, name, about, manner, arguments, messages, output, attributes })
    }

    /// Its name, without what says that it is no keyword.
    pub(crate) fn plain(&self) -> String {
        unmarked(&self.ident)
    }

    /// Value and error of its result, if it is written as one.
    pub(crate) fn parts(&self) -> Option<(&Type, &Type)> {
        parts(self.output.as_ref()?)
    }

    /// On what it depends whether it exists.
    pub(crate) fn conditions(&self) -> impl Iterator<Item = &Attribute> {
        self.attributes.iter().filter(|attribute| attribute.path().is_ident("cfg"))
    }

    /// What else was said of it.
    pub(crate) fn remarks(&self) -> impl Iterator<Item = &Attribute> {
        let kept = ["doc", "deprecated"];
        self.attributes.iter().filter(move |it| kept.iter().any(|kept| it.path().is_ident(kept)))
    }
}

fn parts(output: &Type) -> Option<(&Type, &Type)> {
    let Type::Path(path) = output else { return None };
    let last = path.path.segments.last().filter(|last| last.ident == "Result")?;
    let PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
    let mut arguments = arguments.args.iter();
    match (arguments.next()?, arguments.next()?, arguments.next()) {
        (GenericArgument::Type(value), GenericArgument::Type(error), None) => Some((value, error)),
        _ => None,
    }
}

fn unmarked(ident: &Ident) -> String {
    let name = ident.to_string();
    name.strip_prefix("r#").map_or(name.clone(), str::to_owned)
}

/// A name in what is generated: errors point to where it was written, and lints that are about
/// what people write do not.
fn ours(ident: &Ident) -> Ident {
    let mut ident = ident.clone();
    ident.set_span(ident.span().resolved_at(Span::call_site()));
    ident
}

/// `async fn name(&self, ...)`, and no more.
fn shape(signature: &Signature) -> syn::Result<()> {
    let Signature { constness, asyncness, unsafety, abi, fn_token, generics, .. } = signature;
    let wrong = |span: Span, message| Err(syn::Error::new(span, message));
    if asyncness.is_none() {
        let message = "a function of a service is an `async fn`; one that is only for this side \
                       has a body, and is marked with #[rpc(skip)]";
        return wrong(fn_token.span(), message);
    }
    let odd = constness.map(|it| it.span()).or_else(|| unsafety.map(|it| it.span()));
    if let Some(span) = odd.or_else(|| abi.as_ref().map(Spanned::span)) {
        return wrong(span, "a function of a service is a plain `async fn`");
    }
    if !generics.params.is_empty() || generics.where_clause.is_some() {
        let message = "a function of a service has no generics: its arguments have one type each";
        let span =
            if generics.params.is_empty() { generics.where_clause.span() } else { generics.span() };
        return wrong(span, message);
    }
    let needed = "a function of a service takes `&self`: many calls are made at a time";
    match signature.receiver() {
        None => wrong(signature.ident.span(), needed),
        Some(it) => match &it.reference {
            Some((_, None)) if it.mutability.is_none() && it.colon_token.is_none() => Ok(()),
            _ => Err(syn::Error::new_spanned(it, needed)),
        },
    }
}

fn arguments(signature: &Signature) -> syn::Result<Vec<(Ident, Type)>> {
    let mut arguments = Vec::new();
    for argument in &signature.inputs {
        let FnArg::Typed(argument) = argument else { continue };
        if arguments.len() == ARGUMENTS_MAX {
            let message = "a function of a service has up to 16 arguments: make a struct of some";
            return Err(syn::Error::new_spanned(argument, message));
        }
        let name = match &*argument.pat {
            Pat::Ident(name) if name.by_ref.is_none() && name.subpat.is_none() => &name.ident,
            other => {
                let message = "an argument has a name: the client has it, too";
                return Err(syn::Error::new_spanned(other, message));
            }
        };
        owned::check(&argument.ty)?;
        arguments.push((ours(name), (*argument.ty).clone()));
    }
    Ok(arguments)
}

fn output(signature: &Signature, cast: bool, exchange: bool) -> syn::Result<Option<Type>> {
    match &signature.output {
        ReturnType::Type(_, output) => {
            owned::check(output)?;
            Ok(Some((**output).clone()))
        }
        ReturnType::Default if cast => Ok(None),
        ReturnType::Default => {
            let message = if exchange {
                "an exchange gives `Result<(), _>`: its error is how it ends"
            } else {
                "a function of a service gives a `Result`; one whose caller is not to \
                 wait for it is marked with #[rpc(cast)]"
            };
            Err(syn::Error::new(signature.ident.span(), message))
        }
    }
}
