//! `#[meshx_rpc::service]`; documented where it is exported, in `meshx-rpc`.

mod attributes;
mod client;
mod exchange;
mod function;
mod functions;
mod owned;
mod service;
#[cfg(test)]
mod tests;

use proc_macro2::TokenStream;
use quote::quote;
use syn::ItemTrait;

use service::Service;

/// Makes of a trait the functions of a server, and a client with the same functions.
///
/// Of `trait Orders` there is afterwards:
///
/// * the trait itself. Its futures are `Send`, whatever implements it is `Send + Sync + 'static`, and
///   an implementation has plain `async fn`s;
/// * `OrdersFunctions`: `of(Arc<impl Orders>)` are its functions for a server, exactly those of the
///   trait; `OrdersFunctions::GET` is the name of `get`, for `Functions::only` and policies, and
///   `names()` are all of them;
/// * `OrdersClient`: `new(Client)`, and the same functions. A call fails with a `CallError`: with the
///   application's own error, or because there was no answer.
///
/// With `name = "orders"` a function is called `orders.get`, without just `get`. Its doc comment
/// becomes what it is said to be for. `#[rpc(...)]` on a function:
///
/// | attribute | meaning |
/// |---|---|
/// | `idempotent` | it may run more than once: the client calls again also if it perhaps ran |
/// | `timeout = "250ms"` | so long the client waits, all attempts together; units are `us`, `ms`, `s`, `m` and `h` |
/// | `cast` | the client waits only until the call was accepted; it gives nothing, or a `Result` that nobody hears of |
/// | `skip` | not to be called from elsewhere: any function that has a body |
///
/// Everything else is an `async fn` of `&self` and at most 16 owned arguments, which gives a
/// `Result`; it may have a body. Who calls it, and until when, it learns from `Context::current()`.
/// Arguments, results, messages and errors are serde's `Serialize` and `DeserializeOwned`, and can be
/// sent between threads; errors are `Display` as well, and that of an exchange may be an `Error`. Neither the trait nor its functions have
/// parameters of types or lifetimes.
///
/// Arguments travel as one tuple, also one alone: other callers send `(7,)`, in JSON `[7]`, and for
/// none `()`, in JSON `null`; Elixir programs send a list. A message travels as it is. `OrdersClient`
/// writes both as `Codec::Postcard`: both sides must have been built with the same types, as what was sent does not
/// tell of which types it is. Another codec is the choice of the plain client:
/// `client.function(OrdersFunctions::GET)`.
///
/// ```
/// use std::collections::BTreeMap;
/// use std::sync::Arc;
///
/// use meshx_rpc::transport::Memory;
/// use meshx_rpc::{CallError, Client, Kind, Server};
///
/// #[meshx_rpc::service(name = "prices")]
/// pub trait Prices {
///     /// The price of an article, in cents.
///     #[rpc(idempotent, timeout = "250ms")]
///     async fn of(&self, article: String) -> Result<u64, String>;
/// }
///
/// struct Book(BTreeMap<String, u64>);
///
/// impl Prices for Book {
///     async fn of(&self, article: String) -> Result<u64, String> {
///         self.0.get(&article).copied().ok_or_else(|| format!("there is no {article}"))
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (dial, listen) = Memory::pair();
/// let book = Arc::new(Book(BTreeMap::from([("tea".to_owned(), 350)])));
/// let functions = PricesFunctions::of(book);
/// assert_eq!(functions.names().collect::<Vec<_>>(), ["prices.of"]);
/// let server = Server::new(functions).listen(listen).start();
///
/// let prices = PricesClient::new(Client::to(dial).start());
/// assert_eq!(prices.of("tea".to_owned()).await?, 350);
/// match prices.of("gold".to_owned()).await.unwrap_err() {
///     CallError::Application(reason) => assert_eq!(reason, "there is no gold"),
///     CallError::Rpc(error) => return Err(error.into()),
/// }
///
/// drop(server);
/// match prices.of("tea".to_owned()).await.unwrap_err() {
///     CallError::Rpc(error) => assert_eq!(error.kind(), Kind::Transport),
///     CallError::Application(reason) => unreachable!("{reason}"),
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Messages both ways
///
/// A function whose two arguments are `Incoming<_>` and `Outgoing<_>` (by these names, in this order) is
/// an exchange of messages both ways. The client opens it, and has the other ends:
///
/// ```
/// # use std::sync::Arc;
/// # use meshx_rpc::{Client, Server, transport::Memory};
/// use meshx_rpc::{Error, Incoming, Outgoing};
///
/// #[meshx_rpc::service(name = "desk")]
/// pub trait Desk {
///     /// The sum so far, after each number.
///     async fn sums(&self, numbers: Incoming<i64>, sums: Outgoing<i64>) -> Result<(), Error>;
/// }
///
/// struct Clerk;
///
/// impl Desk for Clerk {
///     async fn sums(
///         &self,
///         mut numbers: Incoming<i64>,
///         mut sums: Outgoing<i64>,
///     ) -> Result<(), Error> {
///         let mut sum = 0;
///         while let Some(number) = numbers.next().await {
///             sum += number?;
///             sums.send(&sum).await?;
///         }
///         Ok(())
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Error> {
/// # let (dial, listen) = Memory::pair();
/// # let server = Server::new(DeskFunctions::of(Arc::new(Clerk))).listen(listen).start();
/// let desk = DeskClient::new(Client::to(dial).start());
/// let (mut numbers, mut sums) = desk.sums().await?; // Outgoing<i64>, Incoming<i64>
/// numbers.send(&40).await?;
/// numbers.send(&2).await?;
/// drop(numbers); // there are no more
/// let mut heard = Vec::new();
/// while let Some(sum) = sums.next().await {
///     heard.push(sum?);
/// }
/// assert_eq!(heard, [40, 42]);
/// # drop(server);
/// # Ok(())
/// # }
/// ```
///
/// It gives `Result<(), _>`, whose error the client finds as the last of what it hears, as an `Error`:
/// `CallError::from` makes of it the application's own again. So it learns, too, that it may not call
/// it. An exchange is neither `cast` nor `idempotent`; its `timeout` is that of the whole of it, and
/// without one it takes as long as it takes, or as the call has in which it was opened. It ends with
/// the last clone of its client at the latest. In version 1 of the protocol there is none.
#[proc_macro_attribute]
pub fn service(
    attribute: proc_macro::TokenStream,
    item: proc_macro::TokenStream,
) -> proc_macro::TokenStream {
    expand(attribute.into(), &item.into()).into()
}

fn expand(attribute: TokenStream, item: &TokenStream) -> TokenStream {
    let mut item: ItemTrait = match syn::parse2(item.clone()) {
        Ok(item) => item,
        Err(error) => {
            let error = error.to_compile_error();
            return quote!(#error #item);
        }
    };
    match Service::read(attribute, &mut item) {
        Ok(service) => {
            let (functions, client) = (functions::expand(&service), client::expand(&service));
            quote!(#item #functions #client)
        }
        // With the trait, so that this is the only error that there is about it.
        Err(error) => {
            let error = error.to_compile_error();
            quote!(#error #item)
        }
    }
}
