//! Giving memory back after the start: a device with fifty pods has fifty shims.
#![expect(unsafe_code, reason = "malloc_trim(3) has no safe wrapper")]

/// Returns freed heap to the kernel.
pub(super) fn trim() {
    #[cfg(target_env = "gnu")]
    {
        unsafe extern "C" {
            fn malloc_trim(pad: usize) -> i32;
        }
        // SAFETY: malloc_trim takes no pointers and is documented as callable at any time (malloc_trim(3)).
        unsafe { malloc_trim(0) };
    }
}
