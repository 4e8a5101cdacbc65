//! Any text with Flux's variables in it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::collections::BTreeMap;

fuzz_target!(|input: (&str, &str)| {
    let (text, value) = input;
    let variables = BTreeMap::from([("A".to_owned(), value.to_owned()), ("B_1".to_owned(), String::new())]);
    let _ = render::flux::substitute(text, &variables);
});
