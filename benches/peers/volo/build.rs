//! Makes Rust of `idl`.

fn main() {
    let thrift = volo_build::Builder::thrift().add_service("idl/echo.thrift");
    thrift.write().expect("the interface is written in Thrift");
}
