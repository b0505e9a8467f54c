//! What a server offers, for those who ask: only where [`Server::listing`](crate::Server::listing)
//! allows it.

use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::functions::Functions;
use crate::policy::{Permits, Policy};
use crate::{Error, Executed, Kind};

/// A function, as [`LIST`] and [`DESCRIBE`] tell of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Listed {
    /// What it is called.
    pub name: String,
    /// What it is for; often nothing is said.
    #[serde(default)]
    pub about: String,
}

/// Takes nothing, and gives a [`Listed`] for each function that the caller may call, in the order of
/// their names, but for the two of this module.
pub const LIST: &str = "meshx.list";

/// Takes the name of a function, and gives its [`Listed`]. One that the caller may not call is as
/// unknown as one that is not there.
pub const DESCRIBE: &str = "meshx.describe";

/// These functions, and the two that tell of them. Those are like any other to the policy: who may not
/// call them learns nothing.
pub(crate) fn with(functions: Functions, policy: Option<Policy>) -> Functions {
    let offered = Offered { functions: functions.clone(), policy };
    let same = offered.clone();
    functions
        .add(LIST, move |()| {
            let listed = offered.listed();
            async move { Ok::<_, Error>(listed) }
        })
        .about(LIST, "what the caller may call")
        .add(DESCRIBE, move |name: String| {
            let described = same.described(&name);
            async move { described }
        })
        .about(DESCRIBE, "what a function is for")
}

#[derive(Clone)]
struct Offered {
    functions: Functions,
    policy: Option<Policy>,
}

impl Offered {
    fn listed(&self) -> Vec<Listed> {
        let permits = self.permits();
        let names = self.functions.names();
        names.filter_map(|name| self.one(name, permits.as_ref())).collect()
    }

    fn described(&self, name: &str) -> Result<Listed, Error> {
        self.one(name, self.permits().as_ref()).ok_or_else(|| {
            let reason = "there is no function of that name that the caller may call";
            Error::new(Kind::UnknownFunction, Executed::Yes, reason)
        })
    }

    /// What of the policy concerns who asks.
    fn permits(&self) -> Option<Permits> {
        let policy = self.policy.as_ref()?;
        let context = Context::current();
        let identity = context.as_ref().and_then(|it| it.peer().identity.as_deref());
        Some(policy.permits(identity))
    }

    fn one(&self, name: &str, permits: Option<&Permits>) -> Option<Listed> {
        let function = self.functions.get(name)?;
        permits
            .is_none_or(|it| it.allows(name))
            .then(|| Listed { name: name.to_owned(), about: function.about().to_owned() })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use meshx_core::Action;

    use super::*;
    use crate::transport::Memory;
    use crate::{Client, Rule, Server, Serving};

    fn started(policy: Option<Policy>, listing: bool) -> (Client, Serving) {
        let functions = Functions::new()
            .add("add", async |(a, b): (u8, u8)| Ok::<_, String>(a + b))
            .about("add", "the sum of two")
            .add("purge", async |()| Ok::<_, String>(()));
        let (dial, listen) = Memory::pair();
        let server = Server::new(functions).listen(listen).listing(listing);
        let server = match policy {
            Some(policy) => server.policy(policy),
            None => server,
        };
        (Client::to(dial).start(), server.start())
    }

    fn named(name: &str, about: &str) -> Listed {
        Listed { name: name.to_owned(), about: about.to_owned() }
    }

    #[tokio::test(start_paused = true)]
    async fn who_may_call_learns_what_there_is() {
        let (client, _server) = started(None, true);
        let list: Vec<Listed> = client.call(LIST, &()).await.unwrap();
        assert_eq!(list, [named("add", "the sum of two"), named("purge", "")]);
        let one: Listed = client.call(DESCRIBE, "add").await.unwrap();
        assert_eq!(one, named("add", "the sum of two"));
        let error = client.call::<_, Listed>(DESCRIBE, "nothing").await.unwrap_err();
        assert_eq!(error.kind(), Kind::UnknownFunction);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_learns_of_what_he_may_not_call() {
        let rules = vec![Rule::allow(["add", "meshx.*"], ["*"])];
        let (client, _server) = started(Some(Policy::new(rules, Action::Deny).unwrap()), true);
        let list: Vec<Listed> = client.call(LIST, &()).await.unwrap();
        assert_eq!(list, [named("add", "the sum of two")]);
        let hidden = client.call::<_, Listed>(DESCRIBE, "purge").await.unwrap_err();
        let absent = client.call::<_, Listed>(DESCRIBE, "purgx").await.unwrap_err();
        assert_eq!(hidden.kind(), Kind::UnknownFunction);
        assert_eq!(hidden.reason(), absent.reason());
        // The list is itself a function that can be denied.
        let rules = vec![Rule::allow(["add"], ["*"])];
        let (client, _server) = started(Some(Policy::new(rules, Action::Deny).unwrap()), true);
        let error = client.call::<_, Vec<Listed>>(LIST, &()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Denied);
    }

    #[tokio::test(start_paused = true)]
    async fn without_listing_nothing_is_told() {
        let (client, _server) = started(None, false);
        for function in [LIST, DESCRIBE] {
            let error = client.call::<_, Listed>(function, "add").await.unwrap_err();
            assert_eq!(error.kind(), Kind::UnknownFunction);
        }
    }
}
