//! What runs in the containers of `cargo xtask e2e containerd`: an ordinary program that knows nothing of where it runs.
//! Its first argument says what to do.

use std::io::{Read, Write};
use std::{env, fs, io, process, thread, time};

fn main() -> io::Result<()> {
    let args: Vec<String> = env::args().collect();
    let arg = |at: usize| args.get(at).map_or("", String::as_str);
    // A served function has no arguments.
    let task = env::var("TASK").unwrap_or_default();
    match if task.is_empty() { arg(1) } else { &task } {
        "say" => {
            println!("arguments: {:?}", &args[2..]);
            println!("QUALITY: {:?}", env::var("QUALITY").ok());
        }
        "cat" => drop(io::copy(&mut io::stdin().lock(), &mut io::stdout().lock())?),
        "exit" => {
            eprintln!("leaving with {}", arg(2));
            process::exit(arg(2).parse().unwrap_or(1));
        }
        "read" => {
            let mut text = String::new();
            fs::File::open(arg(2))?.read_to_string(&mut text)?;
            print!("{text}");
        }
        "write" => fs::write(arg(2), arg(3))?,
        "list" => {
            let mut names = Vec::new();
            for entry in fs::read_dir(arg(2))? {
                names.push(entry?.file_name().to_string_lossy().into_owned());
            }
            names.sort();
            println!("{}", names.join(" "));
        }
        "sleep" => {
            println!("sleeping");
            io::stdout().flush()?;
            thread::sleep(time::Duration::from_secs(100_000));
        }
        "open" => {
            println!("opening");
            io::stdout().flush()?;
            drop(fs::File::open(arg(2))?);
        }
        "nap" => {
            thread::sleep(time::Duration::from_millis(arg(2).parse().unwrap_or(0)));
            process::exit(arg(3).parse().unwrap_or(1));
        }
        "keep" => {
            let mut all = Vec::new();
            io::stdin().lock().read_to_end(&mut all)?;
            loop {
                std::hint::black_box(&all);
            }
        }
        "spin" => {
            println!("spinning");
            io::stdout().flush()?;
            let mut count = 0_u64;
            loop {
                count = std::hint::black_box(count.wrapping_add(1));
            }
        }
        "trap" => panic!("as it was told"),
        "fill" => {
            let mut all = Vec::new();
            loop {
                all.push(vec![1_u8; 1 << 20]);
                std::hint::black_box(&all);
            }
        }
        _ => {}
    }
    Ok(())
}
