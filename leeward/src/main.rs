//! The command line: one binary for device, hub and people.

mod commands;
mod compare;
mod exit;
mod files;
mod fleet;
mod people;
mod print;

use clap::Parser as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    // A shim is single-threaded from its first instruction to its last: it clones processes by raw system calls.
    // So it is told apart here, before anything could start a thread.
    let words: Vec<_> = std::env::args_os().collect();
    if words.get(1).is_some_and(|word| word == "shim") {
        return ExitCode::from(runtime::shim::main(words.into_iter().skip(2).collect()));
    }
    #[cfg(feature = "hub")]
    clap_complete::CompleteEnv::with_factory(<commands::Line as clap::CommandFactory>::command)
        .var(commands::completions::VARIABLE)
        .complete();
    let line = commands::Line::parse();
    match line.run() {
        Ok(()) => ExitCode::SUCCESS,
        // It was told already; the code alone says it to scripts.
        Err(err) if err.is::<exit::Differs>() => ExitCode::from(exit::FAILED),
        Err(err) => {
            let code = exit::code_of(&err);
            print::error(&format!("{err:#}"));
            ExitCode::from(code)
        }
    }
}
