//! An agent on the addresses given as arguments: `agent [HTTP [DNS [DATA-DIR]]]`.
#![expect(clippy::print_stdout, reason = "an example talks to its user")]

use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

use meshx_agent::{Agent, AgentConfig};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let started = Instant::now();
    let mut arguments = std::env::args().skip(1);
    let mut config = AgentConfig { node_name: "n1".to_owned(), ..AgentConfig::default() };
    if let Some(http) = arguments.next() {
        config.http_addr = http.parse()?;
    }
    if let Some(dns) = arguments.next() {
        config.dns_addr = Some(dns.parse()?);
    }
    config.data_dir = arguments.next().map(PathBuf::from);
    let agent = Agent::start(config).await?;
    println!("HTTP http://{}, DNS {:?}", agent.http_addr(), agent.dns_addr());
    println!("trust domain {}, ready in {:?}", agent.trust_domain(), started.elapsed());
    tokio::signal::ctrl_c().await?;
    agent.shutdown().await;
    Ok(())
}
