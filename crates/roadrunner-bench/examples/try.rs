//! Temporary.
use roadrunner_bench::*;
fn main() {
    let config = roadrunner_runtime::Config::default();
    let size: u64 = std::env::args().nth(2).map(|s| s.parse().unwrap()).unwrap_or(100 << 20);
    match std::env::args().nth(1).unwrap().as_str() {
        "transfer" => println!("{:#?}", transfer(&config, size, 30, &mut |_, _| {})),
        "invoke" => println!("{:#?}", invoke(&config, 200_000, &mut |_, _| {})),
        "fanout" => println!("{:#?}", fanout(&config, 100, 10 << 20, &mut |_, _| {})),
        "handover" => println!("{:#?}", handover(&config, size, 2000, 2, &mut |_, _| {})),
        _ => {}
    }
}
