//! The shim alone, for tests and for servers that are not `pilotis`. The server binary has it as a hidden subcommand.

fn main() -> std::process::ExitCode {
    kubelet::shim_main(std::env::args_os().skip(1))
}
