//! The few words of shell that fake containers act out: `echo`, `sleep`, `exit`, joined by `;`.

use model::ContainerRun;
use std::time::Duration;

/// One statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Word {
    /// Write a line.
    Echo(String),
    /// Do nothing for a while.
    Sleep(Duration),
    /// End.
    Exit(i32),
}

/// What a container's command says; empty for one that runs until it is stopped.
pub(super) fn of(container: &ContainerRun) -> Vec<Word> {
    let words: Vec<&str> = container
        .command
        .iter()
        .chain(&container.args)
        .map(String::as_str)
        .collect();
    match words.as_slice() {
        ["sh" | "/bin/sh", "-c", script] => parse(script),
        _ => Vec::new(),
    }
}

fn parse(script: &str) -> Vec<Word> {
    script
        .split(';')
        .filter_map(|statement| word(statement.trim()))
        .collect()
}

fn word(statement: &str) -> Option<Word> {
    let (name, rest) = statement.split_once(' ').unwrap_or((statement, ""));
    match name {
        "echo" => Some(Word::Echo(rest.to_owned())),
        "sleep" => rest
            .parse()
            .ok()
            .map(|seconds| Word::Sleep(Duration::from_secs_f64(seconds))),
        "exit" => Some(Word::Exit(rest.parse().unwrap_or(0))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_read_as_a_shell_reads_them() {
        let want = [
            Word::Echo("hello you".to_owned()),
            Word::Sleep(Duration::from_millis(500)),
            Word::Exit(3),
        ];
        assert_eq!(parse("echo hello you; sleep 0.5;exit 3"), want);
    }
}
