//! leeward

fn main() {}
