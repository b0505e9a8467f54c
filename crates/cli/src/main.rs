//! The command line `meshx`.
fn main() {}
