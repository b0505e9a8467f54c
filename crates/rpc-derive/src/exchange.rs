//! Functions that take and give messages.

use syn::{GenericArgument, Ident, PathArguments, Type};

use crate::attributes::Manner;

/// What goes to and fro in an exchange.
#[derive(Debug)]
pub(crate) struct Messages {
    /// What the caller says.
    pub(crate) said: Type,
    /// What it hears.
    pub(crate) heard: Type,
}

impl Messages {
    /// Those of a function with these arguments, if it is an exchange. It is one by the names of its
    /// types: `Incoming<_>`, `Outgoing<_>`, with or without the way to them.
    pub(crate) fn read(arguments: &[(Ident, Type)]) -> syn::Result<Option<Self>> {
        let ends: Vec<_> = arguments.iter().map(|(_, kind)| (kind, end(kind))).collect();
        match &ends[..] {
            [(_, Some((End::Incoming, said))), (_, Some((End::Outgoing, heard)))] => {
                Ok(Some(Self { said: (*said).clone(), heard: (*heard).clone() }))
            }
            ends => match ends.iter().find(|(_, end)| end.is_some()) {
                Some((kind, _)) => Err(syn::Error::new_spanned(
                    kind,
                    "an exchange has two arguments, `Incoming<_>` and then `Outgoing<_>`: what else \
                     there is to say is one of its messages",
                )),
                None => Ok(None),
            },
        }
    }
}

/// What cannot be said of an exchange.
pub(crate) fn check(manner: &Manner, value: Option<&Type>) -> syn::Result<()> {
    if let Some(span) = manner.cast {
        let message = "an exchange is no cast: its caller takes part until it ends";
        return Err(syn::Error::new(span, message));
    }
    if let Some(span) = manner.idempotent {
        let message = "an exchange is not made again: what was said in it is gone";
        return Err(syn::Error::new(span, message));
    }
    match value {
        Some(Type::Tuple(nothing)) if nothing.elems.is_empty() => Ok(()),
        Some(value) => {
            let message =
                "an exchange gives `Result<(), _>`: what it has to say goes by `Outgoing<_>`";
            Err(syn::Error::new_spanned(value, message))
        }
        // By another name: the compiler finds it.
        None => Ok(()),
    }
}

enum End {
    Incoming,
    Outgoing,
}

/// Which end of an exchange a type is, and of which messages.
fn end(kind: &Type) -> Option<(End, &Type)> {
    let path = match kind {
        Type::Path(path) => &path.path,
        // As macros write them.
        Type::Group(group) => return end(&group.elem),
        Type::Paren(paren) => return end(&paren.elem),
        _ => return None,
    };
    let last = path.segments.last()?;
    let PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
    let mut arguments = arguments.args.iter();
    let (Some(GenericArgument::Type(message)), None) = (arguments.next(), arguments.next()) else {
        return None;
    };
    match &*last.ident.to_string() {
        "Incoming" => Some((End::Incoming, message)),
        "Outgoing" => Some((End::Outgoing, message)),
        _ => None,
    }
}
