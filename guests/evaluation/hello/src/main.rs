//! A WASI command that says hello: what it costs is its start.

fn main() {
    println!("hello");
}
