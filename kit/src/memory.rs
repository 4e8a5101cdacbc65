//! Giving memory back once a start, or a burst of work, is over.
#![expect(unsafe_code, reason = "malloc_trim(3) and madvise(2) have no safe form")]

use rustix::mm::{Advice, madvise};
use std::ffi::c_void;
use std::fs;
use std::os::unix::fs::MetadataExt as _;

/// Gives the kernel freed heap, and lets go of the program's code: what is still used is found in the page cache by its
/// next use, and what only the start needed is the kernel's to reclaim first.
///
/// The code of a program of 20 MB is three quarters of what an idle agent holds mapped, and most of it has run once.
/// Best effort: where `/proc` says nothing, nothing is done.
pub fn settle() {
    trim();
    let Ok(program) = fs::metadata("/proc/self/exe") else {
        return;
    };
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    for (start, length) in maps.lines().filter_map(|line| unchanged(line, program.ino())) {
        let start = std::ptr::with_exposed_provenance_mut::<c_void>(start);
        // SAFETY: the range is one mapping of this process, of the file that it runs, that was never writable: there is
        // no page in it that differs from the file (in a position-independent program neither code nor the constants in
        // front of it are relocated), so that a page dropped here is read again as it was. Linux, madvise(2):
        // MADV_DONTNEED on a private mapping of a file repopulates from the file; other threads may run meanwhile.
        let _ = unsafe { madvise(start, length, Advice::LinuxDontNeed) };
    }
}

/// Start and length of a line of `/proc/PID/maps` that maps code, or the constants at the beginning, of the file with this
/// inode (proc(5)). Other data that is read-only now was relocated before.
fn unchanged(line: &str, inode: u64) -> Option<(usize, usize)> {
    let mut words = line.split_ascii_whitespace();
    let (range, mode, offset) = (words.next()?, words.next()?, words.next()?);
    let first = offset.bytes().all(|digit| digit == b'0');
    if !(mode == "r-xp" || mode == "r--p" && first) || words.nth(1)?.parse() != Ok(inode) {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    let address = |hex| usize::from_str_radix(hex, 16).ok();
    let (start, end) = (address(start)?, address(end)?);
    Some((start, end.checked_sub(start)?))
}

fn trim() {
    #[cfg(target_env = "gnu")]
    {
        unsafe extern "C" {
            fn malloc_trim(pad: usize) -> i32;
        }
        // SAFETY: malloc_trim takes no pointers and is documented as callable at any time (malloc_trim(3)).
        unsafe { malloc_trim(0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_equals_the_file_is_let_go() {
        let line = |mode: &str, offset: u32, inode: u64| {
            format!("55f8788a0000-55f8788a3000 {mode} {offset:08x} fe:00 {inode}   /usr/bin/leeward")
        };
        let whole = Some((0x55f8_788a_0000, 0x3000));
        assert_eq!(unchanged(&line("r-xp", 0x1000, 7), 7), whole);
        assert_eq!(unchanged(&line("r--p", 0, 7), 7), whole);
        assert_eq!(unchanged(&line("r-xp", 0x1000, 8), 7), None);
        // Relocated data is read-only as well, and differs from the file.
        assert_eq!(unchanged(&line("r--p", 0x2000, 7), 7), None);
        assert_eq!(unchanged(&line("rw-p", 0, 7), 7), None);
        assert_eq!(unchanged("7f00-7f01 r-xp 00000000 00:00 0 [vdso]", 7), None);
        assert_eq!(unchanged("", 7), None);
    }

    #[test]
    fn the_program_goes_on_afterwards() {
        let inode = fs::metadata("/proc/self/exe").unwrap().ino();
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let found = maps.lines().filter(|line| unchanged(line, inode).is_some());
        assert!(found.count() > 0, "no code of the program is found:\n{maps}");
        let before: String = (0..1000).map(|number| format!("{number:x} ")).collect();
        settle();
        let after: String = (0..1000).map(|number| format!("{number:x} ")).collect();
        assert_eq!(before, after);
    }
}
