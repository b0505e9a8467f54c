//! Which message is the answer to which call.

use meshx_dist::Payload;
use meshx_etf::{Node, Reference, ReferenceRef, TermReader};

/// The reference and the answer, if the message is `{Tag, Answer}` with one of the tags that calls
/// have: a reference `R`, or `[alias | R]`.
pub(crate) fn of_call(body: &Payload) -> Option<(Reference, Payload)> {
    let decoder = body.decoder();
    let mut reader = decoder.reader(body.bytes()).ok()?;
    if reader.tuple().ok()? != 2 {
        return None;
    }
    let reference = tag(&mut reader)?;
    let node = Node::new(reference.node.to_atom(), reference.creation);
    let reference = Reference::new(node, reference.words())?;
    let at = body.bytes().len().checked_sub(reader.rest().len())?;
    Some((reference, body.slice(at)))
}

/// The alias, if the message is `{[alias | Alias], Answer}`. Costs next to nothing if it is not.
pub(crate) fn through_alias(body: &Payload) -> Option<Reference> {
    // A tuple of two, the first a list of one element before its tail (`erl_ext_dist`).
    const HEAD: [u8; 7] = [104, 2, 108, 0, 0, 0, 1];
    body.bytes().starts_with(&HEAD).then(|| of_call(body)).flatten().map(|(alias, _)| alias)
}

fn tag<'a>(reader: &mut TermReader<'a>) -> Option<ReferenceRef<'a>> {
    if reader.at_reference() {
        return reader.reference().ok();
    }
    // `[alias | R]` is a list of one element whose tail is no list.
    if !reader.at_list() || reader.list().ok()? != 1 || reader.atom().ok()? != "alias" {
        return None;
    }
    reader.reference().ok()
}
