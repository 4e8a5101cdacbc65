//! Whatever is done to a repository's text, checking it ends with findings, not with a panic.

use crate::support::{GOOD, options, tree};
use check::check;
use proptest::prelude::*;

/// Cuts, doubles, swaps and replaces pieces of the text.
fn change(text: &str, at: usize, length: usize, how: u8) -> String {
    let mut characters: Vec<char> = text.chars().collect();
    let from = at % characters.len();
    let to = (from + length).min(characters.len());
    let piece: Vec<char> = characters[from..to].to_vec();
    let put = |text: &str| text.chars().collect::<Vec<char>>();
    let new = match how % 8 {
        0 => Vec::new(),
        1 => [piece.clone(), piece].concat(),
        2 => piece.into_iter().rev().collect(),
        3 => put("null"),
        4 => put("[{}]"),
        5 => put("\n- &a [*a]\n"),
        6 => put("\u{e9}: \u{1f600}\n"),
        _ => put("# leeward:ignore "),
    };
    characters.splice(from..to, new);
    characters.into_iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_it_panic(changes in prop::collection::vec((0..20_000usize, 1..40usize, any::<u8>()), 1..5)) {
        let mut text = GOOD.to_owned();
        for (at, length, how) in changes {
            text = change(&text, at, length, how);
        }
        let report = check(&tree(&text), &options());
        for finding in &report.findings {
            prop_assert!(!finding.message.is_empty() && finding.place.line > 0 && finding.place.column > 0);
        }
    }
}
