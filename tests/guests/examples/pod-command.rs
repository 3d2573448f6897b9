//! A `wasi:cli/command` for pods: does what its first argument says.

use std::io::{Read, Write};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["echo", rest @ ..] => println!("{}", rest.join(" ")),
        ["complain", rest @ ..] => eprintln!("{}", rest.join(" ")),
        ["env", name] => println!("{name}={}", std::env::var(name).unwrap_or_default()),
        ["cat", path] => print!(
            "{}",
            std::fs::read_to_string(path).unwrap_or_else(|e| format!("{path}: {e}\n"))
        ),
        ["write", path, text] => {
            if let Err(e) = std::fs::write(path, text) {
                eprintln!("{path}: {e}");
                std::process::exit(1);
            }
        }
        ["exit", code] => std::process::exit(code.parse().unwrap_or(1)),
        ["upper"] => {
            let mut text = String::new();
            let _ = std::io::stdin().read_to_string(&mut text);
            print!("{}", text.to_uppercase());
            let _ = std::io::stdout().flush();
        }
        ["sleep"] => {
            println!("sleeping");
            loop {
                std::thread::sleep(std::time::Duration::from_secs(3600));
            }
        }
        ["spin"] => {
            println!("spinning");
            let mut n: u64 = 0;
            loop {
                n = std::hint::black_box(n.wrapping_add(1));
            }
        }
        ["eat"] => {
            println!("eating");
            let mut held: Vec<Vec<u8>> = Vec::new();
            loop {
                held.push(vec![1; 1 << 20]);
            }
        }
        ["flood"] => loop {
            println!("{}", "x".repeat(1000));
        },
        other => {
            eprintln!("unknown: {other:?}");
            std::process::exit(2);
        }
    }
}
