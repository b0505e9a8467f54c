//! Tokens go into a header, and nowhere else.

use std::fmt::Write as _;

use meshx_consul::{Client, Config, Secret};
use meshx_core::{Code, Diagnostic};

use crate::agent::{Agent, Folder, Reply, nobody, soon};

const CANARY: &str = "c4na7y-5ecret";

fn token_of(agent: &Agent) -> Vec<Option<String>> {
    agent.asked().iter().map(|asked| asked.headers.get("x-consul-token").cloned()).collect()
}

#[tokio::test]
async fn a_token_is_sent_as_a_header_and_never_in_the_path() {
    let agent = Agent::new(|_| Reply::ok("{}"));
    let mut config = Config::at(&agent.address).unwrap();
    config.token = Some(Secret::new(CANARY));
    let client = Client::new(config).unwrap();
    soon(client.catalog_services()).await.unwrap();
    soon(client.deregister("x")).await.unwrap();
    assert_eq!(token_of(&agent), vec![Some(CANARY.to_owned()); 2]);
    assert!(agent.lines().iter().all(|line| !line.contains(CANARY)));
    soon(agent.client().catalog_services()).await.unwrap();
    assert_eq!(token_of(&agent)[2], None, "without one there is no header");
}

#[tokio::test]
async fn a_token_file_is_read_at_each_request() {
    let folder = Folder::new();
    let path = folder.write("token", "first\n");
    let agent = Agent::new(|_| Reply::ok("{}"));
    let mut config = Config::at(&agent.address).unwrap();
    config.token = Some(Secret::new("overruled"));
    config.token_file = Some(path);
    let client = Client::new(config).unwrap();
    soon(client.catalog_services()).await.unwrap();
    folder.write("token", "  second\n\n");
    soon(client.catalog_services()).await.unwrap();
    assert_eq!(token_of(&agent), [Some("first".to_owned()), Some("second".to_owned())]);
}

#[tokio::test]
async fn a_token_file_that_is_gone_is_an_error_and_not_no_token() {
    let folder = Folder::new();
    let agent = Agent::new(|_| Reply::ok("{}"));
    let mut config = Config::at(&agent.address).unwrap();
    config.token_file = Some(folder.path("missing"));
    let error = soon(Client::new(config).unwrap().catalog_services()).await.unwrap_err();
    assert_eq!(error.code(), Code(401));
    assert!(error.to_string().contains("CONSUL_HTTP_TOKEN_FILE="), "{error}");
    assert!(agent.asked().is_empty());
}

#[tokio::test]
async fn the_password_of_a_proxy_is_basic_authorisation() {
    let agent = Agent::new(|_| Reply::ok("{}"));
    let mut config = Config::at(&agent.address).unwrap();
    config.auth = Some(Secret::new("aladdin:opensesame"));
    soon(Client::new(config).unwrap().catalog_services()).await.unwrap();
    // RFC 7617 §2, in lower case.
    assert_eq!(agent.asked()[0].headers["authorization"], "Basic YWxhZGRpbjpvcGVuc2VzYW1l");
}

/// Everything that can be printed: settings, client, and every kind of error.
#[tokio::test]
async fn no_secret_is_ever_printed() {
    let folder = Folder::new();
    let file = folder.write("token", CANARY);
    let mut printed = String::new();
    let mut sink = |text: &dyn std::fmt::Debug, error: Option<&dyn std::fmt::Display>| {
        write!(printed, "{text:?} {text:#?} ").unwrap();
        if let Some(error) = error {
            write!(printed, "{error} ").unwrap();
        }
    };
    let replies = [
        Reply::status(403, "Permission denied"),
        Reply::status(500, "no"),
        Reply::ok("nonsense"),
        Reply::hang_up(),
    ];
    for reply in replies {
        let agent = Agent::new(move |_| reply.clone());
        let variables = |name: &str| match name {
            "CONSUL_HTTP_ADDR" => Some(agent.address.clone()),
            "CONSUL_HTTP_TOKEN" => Some(CANARY.to_owned()),
            "CONSUL_HTTP_AUTH" => Some(format!("user:{CANARY}")),
            "CONSUL_HTTP_TOKEN_FILE" => Some(file.display().to_string()),
            _ => None,
        };
        let config = Config::from_variables(variables).unwrap();
        sink(&config, None);
        let client = Client::new(config).unwrap();
        sink(&client, None);
        let error = soon(client.catalog_services()).await.unwrap_err();
        sink(&error, Some(&error));
    }
    // A token that no header can carry, from the variable and from the file.
    let broken = format!("{CANARY}\nmore\0");
    let mut config = Config::at(&nobody().to_string()).unwrap();
    config.token = Some(Secret::new(&*broken));
    let agent = Agent::new(|_| Reply::ok("{}"));
    config.address = Config::at(&agent.address).unwrap().address;
    let error = soon(Client::new(config).unwrap().catalog_services()).await.unwrap_err();
    assert_eq!(error.code(), Code(401));
    sink(&error, Some(&error));
    // A password in the address.
    for address in ["http://user:c4na7y-5ecret@host:8500", "user:c4na7y-5ecret@host"] {
        let error = Config::at(address).unwrap_err();
        sink(&error, Some(&error));
    }
    assert!(!printed.contains(CANARY), "{printed}");
    assert!(printed.contains("Permission denied"), "the sink is connected");
}
