//! What an operator reads.

use meshx_consul::{Config, ConsulError};
use meshx_core::{Code, Diagnostic};

use crate::agent::{Agent, Reply, client, nobody, soon};

async fn refused(status: u16, text: &str) -> ConsulError {
    let text = text.to_owned();
    let agent = Agent::new(move |_| Reply::status(status, &text));
    soon(agent.client().catalog_services()).await.unwrap_err()
}

#[tokio::test]
async fn nobody_answers() {
    let address = nobody();
    let error = soon(client(&address.to_string()).agent_self()).await.unwrap_err();
    assert_eq!(error.code(), Code(101));
    assert!(error.is_retryable());
    let text = error.to_string();
    assert!(text.starts_with(&format!("no control plane answers at http://{address}: ")), "{text}");
    assert!(error.hint().unwrap().contains("meshx agent"));
}

#[tokio::test]
async fn the_agents_own_words_are_kept() {
    let error = refused(500, "No cluster leader\n").await;
    let text = error.to_string();
    assert!(text.ends_with("refused GET /v1/catalog/services: 500 No cluster leader"), "{text}");
    assert_eq!((error.code(), error.status()), (Code(109), Some(500)));
    assert!(error.is_retryable());
    assert!(refused(429, "slow down").await.is_retryable());
    let wrong = refused(400, "Bad request: no").await;
    assert_eq!(wrong.code(), Code(109));
    assert!(!wrong.is_retryable());
}

#[tokio::test]
async fn a_missing_right_says_which() {
    let error = refused(403, "Permission denied").await;
    assert_eq!(error.code(), Code(106));
    assert!(!error.is_retryable());
    assert!(error.hint().unwrap().contains("service:write"));
}

#[tokio::test]
async fn what_the_agent_says_is_shortened_and_cannot_paint_the_terminal() {
    let error = refused(500, &format!("\x1b[2J{}", "x".repeat(5000))).await;
    let text = error.to_string();
    assert!(text.len() < 700, "{} bytes", text.len());
    assert!(!text.contains('\x1b'), "{text:?}");
}

#[tokio::test]
async fn an_answer_that_makes_no_sense() {
    let agent = Agent::new(|_| Reply::ok("<html>Welcome</html>"));
    let error = soon(agent.client().catalog_services()).await.unwrap_err();
    assert_eq!(error.code(), Code(110));
    assert!(!error.is_retryable());
    let text = error.to_string();
    assert!(text.contains("answered GET /v1/catalog/services with something unexpected"), "{text}");
}

#[tokio::test]
async fn something_that_is_not_http() {
    let listener = meshx_rt::net::listen(nobody()).unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"SSH-2.0-OpenSSH_9.2\r\n").await.unwrap();
        stream
    });
    let error = soon(client(&address.to_string()).agent_self()).await.unwrap_err();
    assert_eq!(error.code(), Code(101), "{error}");
    drop(serving.await);
}

#[tokio::test]
async fn what_is_unknown_is_none_and_no_error() {
    let agent = Agent::new(|_| Reply::status(404, "unknown service ID: x"));
    assert_eq!(soon(agent.client().agent_service("x")).await.unwrap(), None);
    soon(agent.client().deregister("x")).await.unwrap();
}

#[test]
fn settings_that_cannot_be_used_are_named() {
    let with = |name: &'static str, value: &'static str| {
        Config::from_variables(move |asked| (asked == name).then(|| value.to_owned())).unwrap_err()
    };
    for (name, value) in [
        ("CONSUL_HTTP_SSL", "maybe"),
        ("CONSUL_HTTP_SSL_VERIFY", "false"),
        ("CONSUL_NAMESPACE", "team"),
        ("CONSUL_PARTITION", "team"),
        ("CONSUL_HTTP_ADDR", "ftp://x"),
    ] {
        let error = with(name, value);
        assert_eq!(error.code(), Code(401), "{name}");
        assert!(!error.is_retryable());
        let said = if name == "CONSUL_HTTP_ADDR" { value } else { name };
        assert!(error.to_string().contains(said), "{error}");
    }
    assert!(with("CONSUL_HTTP_SSL_VERIFY", "0").hint().unwrap().contains("CONSUL_CACERT"));
}
