//! What is refused: in which words, and where they point.

use proc_macro2::TokenStream;
use quote::quote;
use syn::ItemTrait;

use crate::service::Service;

/// What is said of a trait: the message, and the piece of the source that it points to.
#[track_caller]
fn errors(attribute: &str, item: &str) -> Vec<(String, String)> {
    let attribute: TokenStream = attribute.parse().expect("tokens");
    let mut item: ItemTrait = syn::parse_str(item).expect("a trait");
    let Err(errors) = Service::read(attribute, &mut item) else { return Vec::new() };
    let told = |error: syn::Error| {
        let place = error.span().source_text().unwrap_or_default();
        (error.to_string(), place)
    };
    errors.into_iter().map(told).collect()
}

/// Of a trait with one function, there is one thing to say.
#[track_caller]
fn refused(function: &str, place: &str, message: &str) {
    let errors = errors("", &format!("trait Orders {{ {function} }}"));
    let [(said, at)] = &errors[..] else { panic!("{function}: {errors:?}") };
    assert!(said.contains(message), "{function}: {said}");
    assert_eq!(at, place, "{function}: {said}");
}

#[track_caller]
fn accepted(function: &str) {
    assert_eq!(errors("", &format!("trait Orders {{ {function} }}")), [], "{function}");
}

#[test]
fn a_service_is_a_trait_without_generics() {
    let one = |item: &str, place: &str, message: &str| {
        let errors = errors("", item);
        assert!(errors[0].0.contains(message), "{errors:?}");
        assert_eq!((errors.len(), &*errors[0].1), (1, place));
    };
    one("trait Orders<T> {}", "<T>", "has no generics");
    one("trait Orders<'a, const N: usize> {}", "<'a, const N: usize>", "has no generics");
    one("trait Orders where Self: Sized {}", "where Self: Sized", "has no generics");
    one("unsafe trait Orders {}", "unsafe", "safe trait");
    one("trait Orders { type Item; }", "type Item;", "functions only");
    one("trait Orders { const MOST: u8 = 1; }", "const MOST: u8 = 1;", "functions only");
    assert_eq!(errors("", "pub(crate) trait Orders: Debug + Clone {}"), []);
}

#[test]
fn what_is_no_trait_is_left_as_it_is() {
    let output = crate::expand(
        TokenStream::new(),
        &quote!(
            struct Orders;
        ),
    )
    .to_string();
    assert!(output.contains("expected `trait`") && output.ends_with("struct Orders ;"), "{output}");
    // And so is a trait that is none: only what is wrong is said of it.
    let item = quote!(
        trait Orders {
            #[rpc(cast)]
            async fn audit(self);
        }
    );
    let output = crate::expand(TokenStream::new(), &item).to_string();
    assert!(output.contains("compile_error") && output.contains("trait Orders"), "{output}");
    assert!(!output.contains("rpc") && !output.contains("OrdersClient"), "{output}");
}

#[test]
fn a_function_is_async_and_has_self() {
    refused("fn get(&self) -> Result<(), E>;", "fn", "#[rpc(skip)]");
    refused("async fn get() -> Result<(), E>;", "get", "takes `&self`");
    refused("async fn get(self) -> Result<(), E>;", "self", "takes `&self`");
    refused("async fn get(&mut self) -> Result<(), E>;", "&mut self", "takes `&self`");
    refused("async fn get(&'a self) -> Result<(), E>;", "&'a self", "takes `&self`");
    refused("async fn get(self: Arc<Self>) -> Result<(), E>;", "self: Arc<Self>", "takes `&self`");
    refused("async unsafe fn get(&self) -> Result<(), E>;", "unsafe", "plain `async fn`");
    refused("async extern \"C\" fn get(&self) -> Result<(), E>;", "extern \"C\"", "plain");
    refused("async fn get<T>(&self, id: T) -> Result<(), E>;", "<T>", "has no generics");
    refused("async fn get<'a>(&self) -> Result<(), E>;", "<'a>", "has no generics");
    let place = "where Self: Sized";
    refused("async fn get(&self) -> Result<(), E> where Self: Sized;", place, "has no generics");
    refused("async fn new(&self) -> Result<(), E>;", "new", "needs another name");
    refused("async fn get(&self);", "get", "#[rpc(cast)]");
    accepted("async fn get(&self) -> Result<(), E>;");
    accepted("async fn get(&self) -> Answer { Ok(()) }");
}

#[test]
fn arguments_are_owned_and_have_names() {
    let one = |argument: &str, place: &str, message: &str| {
        refused(&format!("async fn get(&self, {argument}) -> Result<(), E>;"), place, message);
    };
    one("id: &str", "&", "no reference");
    one("id: Vec<Option<&'static [u8]>>", "&", "no reference");
    one("id: (u8, &mut u8)", "&", "no reference");
    one("id: Cow<'a, str>", "'a", "no lifetime");
    one("id: Cow<'_, str>", "'_", "no lifetime");
    one("id: impl Serialize", "impl", "both sides know");
    one("id: Box<dyn Any>", "dyn", "both sides know");
    one("id: Vec<Self>", "Self", "name the type");
    one("(a, b): (u8, u8)", "(a, b)", "has a name");
    one("_: u8", "_", "has a name");
    accepted("async fn get(&self, mut id: Cow<'static, str>, all: [u8; 3]) -> Result<(), E> { }");
    refused("async fn get(&self) -> Result<&str, E>;", "&", "no reference");
    refused("async fn get(&self) -> Result<impl Serialize, E>;", "impl", "both sides know");
    refused("async fn get(&self) -> Result<Self::Item, E>;", "Self", "name the type");
    let many = |count| {
        let arguments: String = (0..count).map(|it| format!(", a{it}: u8")).collect();
        format!("async fn get(&self{arguments}) -> Result<(), E>;")
    };
    accepted(&many(16));
    refused(&many(17), "a16: u8", "up to 16 arguments");
}

#[test]
fn an_exchange_has_both_ends_and_nothing_else() {
    let ends = "two arguments, `Incoming<_>` and then `Outgoing<_>`";
    let one = |arguments: &str, place: &str| {
        refused(&format!("async fn sums(&self, {arguments}) -> Result<(), E>;"), place, ends);
    };
    one("all: Incoming<u8>", "Incoming<u8>");
    one("all: Outgoing<u8>", "Outgoing<u8>");
    one("out: Outgoing<u8>, all: Incoming<u8>", "Outgoing<u8>");
    one("all: Incoming<u8>, more: Incoming<u8>", "Incoming<u8>");
    one("first: u8, all: Incoming<u8>, out: meshx_rpc::Outgoing<u8>", "Incoming<u8>");
    one("all: Incoming<u8>, out: ::meshx_rpc::Outgoing<u8>, last: u8", "Incoming<u8>");
    one("first: u8, out: ::meshx_rpc::Outgoing<u8>", "::meshx_rpc::Outgoing<u8>");
    let sums = |attribute: &str, output: &str| {
        let arguments = "all: Incoming<u8>, out: rpc::Outgoing<Vec<u8>>";
        format!("{attribute} async fn sums(&self, {arguments}) {output};")
    };
    refused(&sums("", ""), "sums", "an exchange gives `Result<(), _>`");
    refused(&sums("", "-> Result<u8, E>"), "u8", "goes by `Outgoing<_>`");
    refused(&sums("", "-> Result<(u8,), E>"), "(u8,)", "goes by `Outgoing<_>`");
    refused(&sums("#[rpc(cast)]", ""), "cast", "an exchange is no cast");
    refused(&sums("#[rpc(cast)]", "-> Result<(), E>"), "cast", "an exchange is no cast");
    refused(&sums("#[rpc(idempotent)]", "-> Result<(), E>"), "idempotent", "not made again");
    accepted(&sums("", "-> Result<(), E>"));
    accepted(&sums("#[rpc(timeout = \"1h\")]", "-> Answer"));
    refused(
        "async fn sums(&self, all: Incoming<&str>, out: Outgoing<u8>) -> Result<(), E>;",
        "&",
        "no reference",
    );
    // Other types of these names, and what is not called from elsewhere.
    accepted("async fn get(&self, all: Incoming, out: Outgoing<'static, u8>) -> Result<(), E>;");
    accepted("#[rpc(skip)] async fn get(&self, all: Incoming<u8>) { }");
}

#[test]
fn attributes_say_what_is_known_of_them_once() {
    let one = |attribute: &str, place: &str, message: &str| {
        let function = format!("{attribute} async fn get(&self) -> Result<(), E> {{ }}");
        refused(&function, place, message);
    };
    one("#[rpc(retry)]", "retry", "one of `idempotent`, `cast`");
    one("#[rpc(idempotent, idempotent)]", "idempotent", "said already");
    one("#[rpc(cast)] #[rpc(cast)]", "cast", "said already");
    one("#[rpc(skip, skip)]", "skip", "said already");
    one("#[rpc(timeout = \"1s\", timeout = \"2s\")]", "timeout", "said already");
    one("#[rpc(skip, idempotent)]", "skip", "nothing else");
    one("#[rpc(timeout = \"1s\", skip)]", "skip", "nothing else");
    one("#[rpc]", "rpc", "expected attribute arguments");
    one("#[rpc(idempotent = true)]", "=", "expected `,`");
    one("#[rpc(timeout)]", ")", "expected `=`");
    one("#[rpc(timeout = 250)]", "250", "expected string literal");
    for time in ["", "250", "ms", "0ms", "-1s", "1 s", "1d", "1.5s", "9999999999s", "٣s"] {
        let place = format!("\"{time}\"");
        one(&format!("#[rpc(timeout = {place})]"), &place, "250ms");
    }
    refused("#[rpc(skip)] fn get(&self);", "skip", "has a body");
    accepted("#[rpc(skip)] fn get<'a, T>(&'a mut self, it: &'a T) -> &'a T { it }");
    accepted("#[rpc(cast, idempotent, timeout = \"500us\")] async fn get(&self);");
    accepted("#[rpc(cast)] async fn get(&self) -> Result<(), E>;");
}

#[test]
fn names_are_such_as_peers_and_policies_can_say() {
    for name in ["", "two words", "a*", "line\nbreak", "tab\t"] {
        let attribute = format!("name = {name:?}");
        let errors = errors(&attribute, "trait Orders {}");
        assert!(errors[0].0.contains("no blanks"), "{errors:?}");
        assert_eq!((errors.len(), &*errors[0].1), (1, &*format!("{name:?}")));
    }
    assert_eq!(errors("version = 2", "trait Orders {}")[0].1, "version");
    assert_eq!(errors("name = \"a\", name = \"b\"", "trait Orders {}")[0].1, "name");
    assert_eq!(errors("name = \"Elixir.Shop/2\"", "trait Orders {}"), []);
    let long = |len| format!("name = \"{}\"", "n".repeat(len));
    let item = "trait Orders { async fn get(&self) -> Result<(), E>; }";
    assert_eq!(errors(&long(251), item), []);
    assert_eq!(errors(&long(252), item)[0].1, "get");
}

#[test]
fn all_that_is_wrong_is_said_at_once() {
    let item = "trait Orders<T> {
        fn one(&self);
        async fn two(&self, id: &str) -> Result<(), E>;
        #[rpc(what)] async fn three(&self) -> Result<(), E>;
        async fn four(&self) -> Result<(), E>;
    }";
    let places: Vec<_> = errors("name = 1", item).into_iter().map(|(_, place)| place).collect();
    assert_eq!(places, ["1", "<T>", "fn", "&", "what"]);
}

#[test]
fn times_have_the_units_of_the_command_line() {
    let item = |time| {
        let text = format!("trait T {{ #[rpc(timeout = \"{time}\")] async fn f(&self) -> R; }}");
        let mut item = syn::parse_str(&text).expect("a trait");
        let service = Service::read(TokenStream::new(), &mut item).expect("a service");
        service.functions[0].manner.timeout.expect("a time").as_micros()
    };
    let all = ["500us", "250ms", "10s", "2m", "1h"].map(item);
    assert_eq!(all, [500, 250_000, 10_000_000, 120_000_000, 3_600_000_000]);
    assert_eq!(item("4294967295h"), u128::from(u32::MAX) * 3_600_000_000);
}
