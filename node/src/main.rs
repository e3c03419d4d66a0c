//! The program `bedstone`: see [`bedstone_node::cli`].

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    bedstone_node::cli::main()
}
