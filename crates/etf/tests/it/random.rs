//! Random terms.

use meshx_etf::{Atom, BigInt, BitString, Export, Fun, Map, Node, Pid, Port, Reference, Term};
use proptest::collection::vec;
use proptest::prelude::*;

pub(crate) fn atom() -> impl Strategy<Value = Atom> {
    let text = prop_oneof![
        prop::sample::select(vec![
            "ok", "error", "nil", "true", "after", "", "a b", "Elixir.A", "x@y"
        ])
        .prop_map(str::to_owned),
        "[a-z]{1,30}",
        "\\PC{0,12}",
        vec(any::<char>(), 0..6).prop_map(|all| all.into_iter().collect()),
    ];
    text.prop_map(|text| text.parse().expect("short enough"))
}

fn node() -> impl Strategy<Value = Node> {
    let name =
        prop::sample::select(vec!["a@b", "shop@10.0.0.9", "é@h", "zz@y", "a-very-long-name@host"]);
    (name, prop::sample::select(vec![1_u32, 2, 77, u32::MAX]))
        .prop_map(|(name, creation)| Node::new(name.parse().expect("an atom"), creation))
}

pub(crate) fn pid() -> impl Strategy<Value = Pid> {
    (node(), word(), word()).prop_map(|(node, id, serial)| Pid { node, id, serial })
}

fn word() -> impl Strategy<Value = u32> {
    prop_oneof![0..4_u32, any::<u32>()]
}

pub(crate) fn reference() -> impl Strategy<Value = Reference> {
    // A VM that reads two or more words keeps 18 bits of the first one.
    (node(), vec(word(), 1..=5)).prop_map(|(node, mut words)| {
        words[0] &= (1 << 18) - 1;
        Reference::new(node, &words).expect("at most 5")
    })
}

fn fun(free: Vec<Term>) -> impl Strategy<Value = Fun> {
    (any::<u8>(), any::<[u8; 16]>(), 0..i32::MAX, 0..(1 << 27), pid()).prop_map(
        move |(arity, uniq, index, old_uniq, pid)| Fun {
            arity,
            uniq,
            index: index.unsigned_abs(),
            module: "no_such_module".parse().expect("an atom"),
            old_index: index & 0xffff,
            old_uniq,
            pid,
            free: free.clone(),
        },
    )
}

fn export() -> impl Strategy<Value = Export> {
    (atom(), atom(), 0..=255_u32).prop_map(|(module, function, arity)| Export {
        module,
        function,
        arity,
    })
}

pub(crate) fn float() -> impl Strategy<Value = f64> {
    prop_oneof![
        prop::sample::select(vec![0.0, -0.0, 1.0, -1.0, 0.1, 1e22, 1e-5, 9_007_199_254_740_992.0]),
        (-1000_i32..1000).prop_map(f64::from),
        (-99_999_i32..99_999, -12_i32..24).prop_map(|(a, b)| f64::from(a) * 10_f64.powi(b)),
        any::<f64>(),
        any::<u64>().prop_map(f64::from_bits),
    ]
    .prop_filter("finite", |value| value.is_finite())
}

fn leaf() -> impl Strategy<Value = Term> {
    prop_oneof![
        4 => (-300_i64..300).prop_map(Term::from),
        2 => any::<i64>().prop_map(Term::from),
        1 => any::<i128>().prop_map(Term::from),
        1 => (any::<bool>(), vec(any::<u8>(), 0..300)).prop_map(|(n, b)| BigInt::new(n, &b).into()),
        2 => float().prop_map(Term::from),
        4 => atom().prop_map(Term::from),
        2 => vec(any::<u8>(), 0..40).prop_map(|bytes| Term::from(&bytes[..])),
        1 => "\\PC{0,12}".prop_map(Term::from),
        1 => "\\PC{1,12}".prop_map(|text| Term::charlist(&text)),
        1 => vec(0..=255_u8, 0..20).prop_map(|l| l.into_iter().map(Term::from).collect()),
        1 => (vec(any::<u8>(), 1..5), 1..=7_u8)
            .prop_map(|(bytes, bits)| BitString::new(&bytes, bits).expect("1 to 7 bits").into()),
        1 => pid().prop_map(Term::from),
        1 => (node(), prop_oneof![0..9_u64, any::<u64>()])
            .prop_map(|(node, id)| Port { node, id }.into()),
        1 => reference().prop_map(Term::from),
        1 => export().prop_map(Term::from),
    ]
}

/// Any term; without funs, as they cannot be read from text.
pub(crate) fn plain() -> impl Strategy<Value = Term> {
    nested(leaf().boxed())
}

/// Any term.
pub(crate) fn term() -> impl Strategy<Value = Term> {
    let fun = vec(leaf(), 0..3).prop_flat_map(fun).prop_map(Term::from);
    nested(prop_oneof![12 => leaf(), 1 => fun].boxed())
}

/// Few different terms, so that two of them are often nearly equal.
pub(crate) fn close() -> impl Strategy<Value = Term> {
    let number = prop_oneof![
        (-2_i64..3).prop_map(Term::from),
        prop::sample::select(vec![-1.0, -0.0, 0.0, 0.5, 1.0, 2.0, 1e300, 9_007_199_254_740_993.0])
            .prop_map(Term::from),
        prop::sample::select(vec![i64::MAX, i64::MIN, (1 << 53) + 1, 1 << 53]).prop_map(Term::from),
        prop::sample::select(vec![1_i128 << 63, -(1 << 64), 1 << 100]).prop_map(Term::from),
    ];
    let leaf = prop_oneof![
        6 => number,
        2 => prop::sample::select(vec!["a", "b", "aa", "å", "中"]).prop_map(Term::atom),
        2 => vec(0..2_u8, 0..3).prop_map(|bytes| Term::from(&bytes[..])),
        1 => (0..=255_u8, 1..=7_u8).prop_map(|(b, n)| BitString::new(&[b], n).expect("bits").into()),
        2 => Just(Term::nil()),
        1 => pid().prop_map(Term::from),
        1 => (node(), 0..3_u64).prop_map(|(node, id)| Port { node, id }.into()),
        1 => reference().prop_map(Term::from),
        1 => (0..2_u32).prop_map(|arity| Export {
            module: "m".parse().expect("an atom"),
            function: "f".parse().expect("an atom"),
            arity,
        }
        .into()),
    ];
    nested(leaf.boxed())
}

fn nested(leaf: BoxedStrategy<Term>) -> impl Strategy<Value = Term> {
    leaf.prop_recursive(4, 48, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Term::Tuple),
            vec(inner.clone(), 0..6).prop_map(Term::List),
            (vec(inner.clone(), 1..4), inner.clone())
                .prop_map(|(elements, tail)| Term::list_ending(elements, tail)),
            vec((inner.clone(), inner), 0..5)
                .prop_map(|pairs| Term::Map(pairs.into_iter().collect::<Map>())),
        ]
    })
}
