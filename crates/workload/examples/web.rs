//! A Rust program as a service of the mesh: `cargo run -p meshx-workload --example web`, with a
//! control plane at `CONSUL_HTTP_ADDR` (`meshx agent`). It answers every connection with a line and
//! ends on Ctrl-C.
#![allow(clippy::print_stdout, reason = "an example talks")]

use meshx_core::{Service, ServiceMesh as _};
use meshx_rt::net;
use meshx_workload::Mesh;
use tokio::io::AsyncWriteExt as _;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mesh = Mesh::from_env()?;
    let web = mesh.start(Service::named("web".parse()?)).await?;
    let listener = net::listen(web.local)?;
    println!("{} serves {}, its peers come in by {}", web.name, web.local, web.public);
    println!("try: meshx exec --name me --upstream web:18080 -- curl telnet://127.0.0.1:18080");
    loop {
        tokio::select! {
            accepted = listener.accept() => accepted?.0.write_all(b"hello from the mesh\n").await?,
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    mesh.stop(web).await?;
    Ok(())
}
