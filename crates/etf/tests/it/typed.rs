//! Rust types through serde and `#[derive(Etf)]`.

use std::collections::{BTreeMap, HashMap};

use meshx_etf::dist::{Frame, InCache, OutCache};
use meshx_etf::{
    Atom, Binary, Decoder, Etf, Node, Pid, Reference, Term, TypedError, decode, encode, from_bytes,
    from_term, term, to_bytes, to_term,
};
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{frames, random};

/// The value is this term, and this term the value.
#[track_caller]
fn both<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T, term: &Term) {
    assert_eq!(&to_term(value).unwrap(), term);
    assert_eq!(&from_term::<T>(term).unwrap(), value);
    let bytes = to_bytes(value).unwrap();
    assert_eq!(&decode(&bytes).unwrap(), term);
}

fn pid() -> Pid {
    Pid { node: Node::new("a@b".parse().unwrap(), 5), id: 7, serial: 1 }
}

#[test]
fn simple_values() {
    both(&true, &term!(true));
    both(&-7_i8, &term!(-7));
    both(&u64::MAX, &Term::from(u64::MAX));
    both(&i128::MIN, &Term::from(i128::MIN));
    both(&1.5_f32, &term!(1.5));
    both(&'å', &term!("å"));
    both(&"text".to_owned(), &term!("text"));
    both(&(), &term!(nil));
    both(&None::<u8>, &term!(nil));
    both(&Some(3_u8), &term!(3));
    both(&vec![1_i64, 300], &term!([1, 300]));
    both(&Vec::<u8>::new(), &term!([]));
    both(&(1_u8, "a".to_owned()), &term!({1, "a"}));
    both(&"x@y".parse::<Atom>().unwrap(), &term!(atom "x@y"));
    both(&Binary::from("b"), &term!("b"));
    both(&pid(), &pid().into());
    both(&BTreeMap::from([(1_u8, "a".to_owned())]), &term!(#{1 => "a"}));
    both(&Ok::<u8, String>(1), &term!({ok, 1}));
    both(&Err::<u8, Atom>("busy".parse().unwrap()), &term!({error, busy}));
    let reference = Reference::new(pid().node, &[1, 2, 3]).unwrap();
    both(&vec![reference.clone()], &Term::List(vec![reference.into()]));
}

#[test]
fn what_else_is_read() {
    assert_eq!(from_term::<Option<u8>>(&term!(undefined)), Ok(None));
    assert_eq!(from_term::<Result<(), Atom>>(&term!(ok)), Ok(Ok(())));
    assert_eq!(from_term::<String>(&term!(charlist "grün中")).unwrap(), "grün中");
    assert_eq!(from_term::<String>(&term!(charlist "grün")).unwrap(), "grün");
    assert_eq!(from_term::<String>(&term!(an_atom)).unwrap(), "an_atom");
    assert_eq!(from_term::<f64>(&term!(2)), Ok(2.0));
    let keywords = term!([{a, 1}, {b, 2}]);
    let map = from_term::<HashMap<String, u8>>(&keywords).unwrap();
    assert_eq!(map, HashMap::from([("a".to_owned(), 1), ("b".to_owned(), 2)]));
    // Lists in pieces, as other programs than VMs may write them.
    let pieces = [131, 108, 0, 0, 0, 1, 97, 1, 108, 0, 0, 0, 1, 97, 2, 107, 0, 2, 3, 4];
    assert_eq!(from_bytes::<Vec<u8>>(&pieces), Ok(vec![1, 2, 3, 4]));
}

#[test]
fn terms_in_a_list_that_travels_as_a_string() {
    let list = term!([1, 2, 3]);
    assert_eq!(from_term::<Vec<Term>>(&list).unwrap(), [1, 2, 3].map(|n| term!((n))));
    let text = term!([{1, 2} | (list)]);
    let terms = from_term::<Vec<Term>>(&text).unwrap();
    assert_eq!(terms.len(), 4);
    assert_eq!(terms[3], term!(3));
}

#[test]
fn what_does_not_fit_is_refused() {
    assert!(from_term::<u8>(&term!(256)).is_err());
    assert!(from_term::<u8>(&term!(1.0)).is_err());
    assert!(from_term::<(u8, u8)>(&term!({ 1 })).is_err());
    assert!(from_term::<(u8, u8)>(&term!({1, 2, 3})).is_err());
    assert!(from_term::<Vec<u8>>(&term!({ 1 })).is_err());
    assert!(from_term::<Vec<u8>>(&term!([1, 2 | x])).is_err());
    assert!(from_term::<[u8; 2]>(&term!([1, 2])).is_err());
    assert!(from_term::<Atom>(&term!("binary")).is_err());
    assert!(from_term::<Pid>(&term!(x)).is_err());
    let error = from_term::<bool>(&term!(5)).unwrap_err();
    assert_eq!(error.to_string(), "true or false was wanted, and there is an integer");
    assert!(matches!(from_bytes::<u8>(&[131, 97, 1, 0]), Err(TypedError::Decode(_))));
    let deep = [vec![131], [104, 1].repeat(10_000), vec![106]].concat();
    assert!(from_bytes::<serde::de::IgnoredAny>(&deep).is_err());
    assert!(from_bytes::<Term>(&deep).is_err());
}

#[derive(Serialize, Deserialize, Debug, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Plain {
    Ping,
    Add(i64),
    Pair(u8, String),
    Named { a: u8, b: Option<bool> },
}

#[test]
fn enums_of_serde() {
    both(&Plain::Ping, &term!(ping));
    both(&Plain::Add(5), &term!({add, 5}));
    both(&Plain::Pair(1, "x".to_owned()), &term!({pair, 1, "x"}));
    both(&Plain::Named { a: 1, b: None }, &term!({named, #{a => 1, b => nil}}));
    assert!(from_term::<Plain>(&term!(other)).is_err());
    assert!(from_term::<Plain>(&term!({ping, 1})).is_err());
    assert!(from_term::<Plain>(&term!({pair, 1})).is_err());
}

#[derive(Etf, Debug, PartialEq)]
struct Account {
    id: u64,
    owner: String,
}

#[derive(Etf, Debug, PartialEq)]
#[etf(tag = "acc")]
struct Renamed(u8, Pid);

#[derive(Etf, Debug, PartialEq)]
#[etf(untagged)]
struct Point {
    x: f64,
    y: f64,
}

#[derive(Etf, Debug, PartialEq)]
#[etf(map)]
struct AtomKeys {
    name: String,
    #[etf(rename = "type")]
    kind: Atom,
    #[etf(default)]
    age: Option<u8>,
}

#[derive(Etf, Debug, PartialEq)]
#[etf(map, binary_keys)]
struct BinaryKeys<'a> {
    name: &'a str,
}

#[derive(Etf, Debug, PartialEq)]
#[etf(keyword)]
struct Options<T> {
    timeout: T,
    name: Atom,
}

#[derive(Etf, Debug, PartialEq)]
#[etf(elixir = "MyApp.User")]
struct User {
    name: String,
    accounts: Vec<Account>,
}

#[derive(Etf, Debug, PartialEq)]
struct StopNow;

#[derive(Etf, Debug, PartialEq)]
enum Reply<T> {
    Ok(T),
    #[etf(tag = "error")]
    Failed(Atom, u8),
    NotFound,
    Partial {
        done: u8,
        #[etf(default)]
        rest: Vec<T>,
    },
}

#[test]
fn derived_shapes() {
    both(&Account { id: 1, owner: "Ann".to_owned() }, &term!({account, 1, "Ann"}));
    both(&Renamed(3, pid()), &term!({acc, 3, (pid())}));
    both(&Point { x: 1.0, y: -2.0 }, &term!({1.0, -2.0}));
    let keys = AtomKeys { name: "n".to_owned(), kind: "k".parse().unwrap(), age: None };
    both(&keys, &term!(#{name => "n", atom "type" => k, age => nil}));
    assert_eq!(from_term(&term!(#{name => "n", atom "type" => k, more => {}})), Ok(keys));
    let bytes = encode(&term!(#{"name" => "n"})).unwrap();
    assert_eq!(from_bytes(&bytes), Ok(BinaryKeys { name: "n" }));
    assert_eq!(to_bytes(&BinaryKeys { name: "n" }).unwrap(), bytes);
    let options = Options { timeout: 5_u8, name: "x".parse().unwrap() };
    both(&options, &term!([{timeout, 5}, {name, x}]));
    assert_eq!(from_term(&term!([{name, x}, {timeout, 5}])), Ok(options));
    let accounts = vec![Account { id: 1, owner: "A".to_owned() }];
    let user = User { name: "n".to_owned(), accounts };
    let written = term!(#{
        __struct__ => atom "Elixir.MyApp.User",
        name => "n",
        accounts => [{account, 1, "A"}]
    });
    both(&user, &written);
    both(&StopNow, &term!(stop_now));
    both(&Reply::Ok(5), &term!({ok, 5}));
    both(&Reply::<u8>::Failed("x".parse().unwrap(), 2), &term!({error, x, 2}));
    both(&Reply::<u8>::NotFound, &term!(not_found));
    both(&Reply::Partial { done: 1, rest: vec![2] }, &term!({partial, #{done => 1, rest => [2]}}));
    let partial = from_term(&term!({partial, #{done => 1}}));
    assert_eq!(partial, Ok(Reply::<u8>::Partial { done: 1, rest: Vec::new() }));
}

#[test]
fn derived_shapes_refuse_others() {
    for other in [term!({account, 1}), term!({acc, 1, "A"}), term!(account), term!([account, 1])] {
        assert!(from_term::<Account>(&other).is_err(), "{other}");
    }
    assert!(from_term::<User>(&term!(#{name => "n", accounts => []})).is_err());
    let wrong = term!(#{__struct__ => atom "Elixir.Other", name => "n", accounts => []});
    let error = from_term::<User>(&wrong).unwrap_err().to_string();
    assert_eq!(error, "`Elixir.MyApp.User` was wanted, and there is `Elixir.Other`");
    assert!(from_term::<Options<u8>>(&term!([{timeout, 5}])).is_err());
    assert!(from_term::<Options<u8>>(&term!([{timeout, 5}, {timeout, 5}, {name, x}])).is_err());
    assert!(from_term::<Options<u8>>(&term!([{timeout, 5}, {name, x} | y])).is_err());
    assert!(from_term::<StopNow>(&term!(stop)).is_err());
    assert!(from_term::<Reply<u8>>(&term!({error, x})).is_err());
}

#[test]
fn a_payload_uses_the_atom_cache() {
    let (mut out, mut cache) = (OutCache::new(), InCache::new());
    let value = (Account { id: 1, owner: "A".to_owned() }, pid(), Plain::Ping);
    for round in 0..2 {
        let control = term!({6, (pid()), "", receiver});
        let draft = frames::typed(&control, |draft| draft.payload_typed(&value)).unwrap();
        let wire = frames::whole(&mut out, &draft);
        let text = wire.windows(7).any(|window| window == b"account");
        assert_eq!(text, round == 0);
        let Frame::Whole { body } = Frame::parse(&wire, &mut cache).unwrap() else { panic!() };
        let decoder = Decoder::new().atoms(cache.atoms());
        let rest = decoder.skip(body).unwrap();
        let (read, rest) = decoder.bare_typed::<(Account, Pid, Plain)>(rest).unwrap();
        assert_eq!((&read, rest), (&value, &[][..]));
    }
}

#[test]
fn borrows_from_the_input() {
    let bytes = to_bytes(&("a text", "b")).unwrap();
    let (a, _): (&str, &str) = from_bytes(&bytes).unwrap();
    assert!(bytes.as_ptr_range().contains(&a.as_ptr()));
}

proptest! {
    #[test]
    fn every_term_is_a_value(term in random::term()) {
        prop_assert_eq!(&from_term::<Term>(&to_term(&term).unwrap()).unwrap(), &term);
        let bytes = to_bytes(&term).unwrap();
        prop_assert!(from_bytes::<serde::de::IgnoredAny>(&bytes).is_ok());
    }

    #[test]
    fn any_bytes_are_a_value_or_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        bytes.insert(0, 131);
        let term = decode(&bytes);
        if bytes.get(1) != Some(&80) {
            prop_assert_eq!(from_bytes::<Term>(&bytes).ok(), term.ok());
        }
        let values = from_bytes::<Vec<(u8, Plain)>>(&bytes);
        prop_assert!(values.is_err() || decode(&bytes).is_ok());
    }

    #[test]
    fn lists_of_any_integers(values in prop::collection::vec(any::<i64>(), 0..50)) {
        let bytes = to_bytes(&values).unwrap();
        prop_assert_eq!(&bytes, &encode(&values.iter().copied().map(Term::from).collect()).unwrap());
        prop_assert_eq!(from_bytes::<Vec<i64>>(&bytes).unwrap(), values);
    }

    #[test]
    fn lists_of_bytes(values in prop::collection::vec(any::<u8>(), 0..50)) {
        let bytes = to_bytes(&values).unwrap();
        prop_assert_eq!(&bytes, &encode(&values.iter().copied().map(Term::from).collect()).unwrap());
        prop_assert_eq!(from_bytes::<Vec<u8>>(&bytes).unwrap(), values);
    }
}

#[derive(Etf, Debug, PartialEq)]
enum Tree {
    Leaf,
    Node(Vec<Tree>),
}

#[test]
fn a_type_that_nests_is_bounded_too() {
    let nested = |depth: usize| {
        let mut tree = Tree::Leaf;
        for _ in 0..depth {
            tree = Tree::Node(vec![tree]);
        }
        tree
    };
    let bytes = to_bytes(&nested(250)).unwrap();
    assert_eq!(from_bytes::<Tree>(&bytes), Ok(nested(250)));
    let bytes = to_bytes(&nested(300)).unwrap();
    assert!(from_bytes::<Tree>(&bytes).is_err());
}
