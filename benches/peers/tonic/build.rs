//! Makes the server and the client that `protoc` would make of a `.proto`, but for the message, which
//! is in Rust.

use tonic_build::manual::{Builder, Method, Service};

fn main() {
    let echo = Method::builder()
        .name("echo")
        .route_name("Echo")
        .input_type("crate::Body")
        .output_type("crate::Body")
        .codec_path("tonic_prost::ProstCodec")
        .build();
    let service = Service::builder().name("Echo").package("echo").method(echo).build();
    Builder::new().compile(&[service]);
}
