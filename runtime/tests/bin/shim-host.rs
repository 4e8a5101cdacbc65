//! `shim-host shim ...`: what `leeward shim ...` is in the product.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(runtime::shim::main(std::env::args_os().skip(2).collect()))
}
