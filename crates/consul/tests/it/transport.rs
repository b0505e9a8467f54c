//! TCP, TLS and Unix sockets; connections that are used again.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use meshx_consul::{Client, Config};
use meshx_core::{Action, Code, Diagnostic, IntentionName};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio_rustls::TlsAcceptor;

use crate::agent::{Agent, Folder, Reply, client, soon};

#[tokio::test]
async fn a_unix_socket() {
    let folder = Folder::new();
    let agent = Agent::unix(&folder.path("http.sock"), |_| Reply::ok(r#"{"db":["v1"]}"#));
    let services = soon(agent.client().catalog_services()).await.unwrap();
    assert_eq!(services["db"], ["v1"]);
    assert_eq!(agent.asked()[0].headers["host"], "localhost");

    let nobody = format!("unix://{}", folder.path("other.sock").display());
    let error = soon(client(&nobody).catalog_services()).await.unwrap_err();
    assert_eq!(error.code(), Code(101));
    assert!(error.to_string().contains(&nobody), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_serves_one_request_after_the_other() {
    let agent = Agent::new(|_| Reply::ok("{}"));
    let client = agent.client();
    for _ in 0..20 {
        soon(client.catalog_services()).await.unwrap();
    }
    let connections = agent.asked().last().unwrap().connection + 1;
    assert_eq!(connections, 1, "connections for 20 requests");
}

#[tokio::test]
async fn requests_at_once_do_not_wait_for_each_other() {
    let agent = Agent::new(|_| Reply::ok("{}").after(Duration::from_millis(200)));
    let client = agent.client();
    let begun = std::time::Instant::now();
    let requests: Vec<_> = (0..8)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.catalog_services().await })
        })
        .collect();
    for request in requests {
        soon(request).await.unwrap().unwrap();
    }
    assert!(begun.elapsed() < Duration::from_millis(800), "{:?}", begun.elapsed());
}

/// An agent may close an idle connection at any time, even as the next request is on its way.
#[tokio::test]
async fn an_idle_connection_that_the_agent_closed_is_replaced_unseen() {
    let agent = Agent::new(|asked| match asked.connection {
        0 if asked.target.contains("again") => Reply::hang_up(),
        _ => Reply::ok("{}"),
    });
    let client = agent.client();
    soon(client.catalog_services()).await.unwrap();
    soon(client.get::<serde_json::Value>("/v1/again")).await.unwrap();
    let connections: Vec<_> = agent.asked().iter().map(|asked| asked.connection).collect();
    assert_eq!(connections, [0, 0, 1]);
}

/// But what must not be done twice is not asked twice.
#[tokio::test]
async fn a_post_that_was_cut_is_not_repeated() {
    let agent = Agent::new(|asked| match asked.method.as_str() {
        "PUT" => Reply::status(500, "UUID must be 36 characters"),
        "POST" => Reply::hang_up(),
        _ => Reply::at(5, "[]"),
    });
    let (web, db): (IntentionName, IntentionName) = ("web".parse().unwrap(), "db".parse().unwrap());
    let error = soon(agent.client().put_intention(&web, &db, Action::Deny)).await.unwrap_err();
    assert_eq!(error.code(), Code(101), "{error}");
    let posts = agent.lines().iter().filter(|line| line.starts_with("POST")).count();
    assert_eq!(posts, 1);
}

/// An authority with its own certificate in a file.
struct Authority {
    folder: Folder,
    file: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let cert = params.self_signed(&key).unwrap();
        let folder = Folder::new();
        let file = folder.write("ca.pem", &cert.pem());
        Self { folder, file, root: cert.der().clone(), issuer: Issuer::new(params, key) }
    }

    fn issue(&self, names: &[&str]) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let cert = CertificateParams::new(names).unwrap().signed_by(&key, &self.issuer).unwrap();
        (cert, key)
    }

    fn acceptor(&self, names: &[&str], clients: bool) -> TlsAcceptor {
        let (cert, key) = self.issue(names);
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = meshx_identity::provider();
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = if clients {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(self.root.clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let config = builder.with_single_cert(vec![cert.der().clone()], key).unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

fn trusting(agent: &Agent, authority: &Authority) -> Config {
    let mut config = Config::at(&agent.address).unwrap();
    config.tls.ca = Some(authority.file.clone());
    config
}

#[tokio::test]
async fn https_with_a_private_authority() {
    let authority = Authority::new();
    let agent =
        Agent::tls(authority.acceptor(&["127.0.0.1"], false), |_| Reply::ok("{}").chunked());
    let config = trusting(&agent, &authority);
    soon(Client::new(config.clone()).unwrap().catalog_services()).await.unwrap();
    // A folder of authorities does as well.
    let mut config = config;
    config.tls.ca = Some(authority.folder.path(""));
    soon(Client::new(config).unwrap().catalog_services()).await.unwrap();
}

#[tokio::test]
async fn https_with_a_wrong_name_is_refused() {
    let authority = Authority::new();
    let agent = Agent::tls(authority.acceptor(&["consul.example"], false), |_| Reply::ok("{}"));
    let mut config = trusting(&agent, &authority);
    let client = Client::new(config.clone()).unwrap();
    let error = soon(client.catalog_services()).await.unwrap_err();
    assert!(agent.asked().is_empty(), "no request, and no token, was sent");
    assert_eq!(error.code(), Code(508), "{error}");
    assert!(!error.is_retryable());
    let text = error.to_string();
    assert!(text.contains(&agent.address) && text.contains("not valid for name"), "{text}");
    assert!(error.hint().unwrap().contains("CONSUL_TLS_SERVER_NAME"));

    config.tls.server_name = Some("consul.example".to_owned());
    soon(Client::new(config).unwrap().catalog_services()).await.unwrap();
}

#[tokio::test]
async fn https_with_a_foreign_authority_is_refused() {
    let (authority, other) = (Authority::new(), Authority::new());
    let agent = Agent::tls(authority.acceptor(&["127.0.0.1"], false), |_| Reply::ok("{}"));
    let client = Client::new(trusting(&agent, &other)).unwrap();
    let error = soon(client.catalog_services()).await.unwrap_err();
    assert!(agent.asked().is_empty());
    assert_eq!(error.code(), Code(508), "{error}");
    assert!(error.hint().unwrap().contains("CONSUL_CACERT"));
}

#[tokio::test]
async fn https_towards_plain_http_says_so() {
    let authority = Authority::new();
    let agent = Agent::new(|_| Reply::ok("{}"));
    let mut config = Config::at(&format!("https://{}", agent.address)).unwrap();
    config.tls.ca = Some(authority.file.clone());
    // The agent waits for the end of a request, and the client for the beginning of TLS.
    let error = soon(Client::new(config).unwrap().catalog_services()).await.unwrap_err();
    assert_eq!(error.code(), Code(101), "{error}");
    assert!(error.to_string().contains("no TLS handshake within 3s"), "{error}");
}

#[tokio::test]
async fn a_client_certificate_is_presented() {
    let authority = Authority::new();
    let agent = Agent::tls(authority.acceptor(&["127.0.0.1"], true), |_| Reply::ok("{}"));
    let without = Client::new(trusting(&agent, &authority)).unwrap();
    soon(without.catalog_services()).await.unwrap_err();
    assert!(agent.asked().is_empty());

    let (cert, key) = authority.issue(&["client"]);
    let mut config = trusting(&agent, &authority);
    config.tls.client_cert = Some(authority.folder.write("client.crt", &cert.pem()));
    config.tls.client_key = Some(authority.folder.write("client.key", &key.serialize_pem()));
    soon(Client::new(config).unwrap().catalog_services()).await.unwrap();
}

#[tokio::test]
async fn files_that_hold_no_certificate_are_named() {
    let folder = Folder::new();
    let mut config = Config::at("https://127.0.0.1:1").unwrap();
    config.tls.ca = Some(folder.write("empty.pem", "nothing"));
    assert_eq!(Client::new(config.clone()).unwrap_err().code(), Code(401));
    config.tls.ca = Some(folder.path("missing.pem"));
    let error = Client::new(config).unwrap_err();
    assert!(error.to_string().contains("missing.pem"), "{error}");
}
