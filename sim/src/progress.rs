//! What a person sees while something long goes on.

use std::io::Write as _;
use std::time::Instant;

/// Tells steps as they come, with the time since the start.
#[derive(Debug)]
pub struct Progress(Instant);

impl Default for Progress {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Progress {
    /// A new part of the story.
    pub fn chapter(&self, title: &str) {
        self.line(&format!("\n{title}"));
    }

    /// Something that happens in it.
    pub fn step(&self, text: &str) {
        self.line(&format!("  {:>6.1}s  {text}", self.0.elapsed().as_secs_f32()));
    }

    /// As it is.
    pub fn line(&self, text: &str) {
        // Nobody to tell if standard error is closed.
        let _ = writeln!(std::io::stderr(), "{text}");
    }
}
