//! `cargo run -p render --example build -- DIR [PATH]`: prints what `kubectl kustomize DIR/PATH` prints.
//!
//! For comparing and measuring; the product's command is `leeward build`.

#[path = "../tests/support/mod.rs"]
mod support;

use std::{io::Write, process::ExitCode};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().unwrap_or_else(|| ".".to_owned());
    let path = arguments.next().unwrap_or_default();
    let tree = support::tree_of(dir.as_ref());
    match render::build(&tree, &path, &render::BuildOptions::default()) {
        Ok(build) => match std::io::stdout().write_all(build.to_yaml().as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}
