//! A piece of work with an end: counts prime numbers.

use crate::{ending, env, json};

/// Works, prints what came out, and ends; fails where `FAIL` is set.
#[expect(clippy::print_stdout, reason = "a container speaks through its output")]
pub(crate) fn run() -> Result<(), String> {
    let given = env("UPTO", "200000");
    let upto: u32 = given
        .parse()
        .map_err(|_| format!("UPTO={given:?} is no number"))?;
    if !env("FAIL", "").is_empty() {
        return Err("fails, as asked".to_owned());
    }
    let primes = count_primes(upto).ok_or("was asked to end")?;
    println!(
        "{{\"device\":{},\"upto\":{upto},\"primes\":{primes}}}",
        json(&env("DEVICE", "unknown"))
    );
    Ok(())
}

/// Eratosthenes' sieve; `None` where the pod ends first.
fn count_primes(upto: u32) -> Option<u32> {
    let size = usize::try_from(upto).ok()?.checked_add(1)?;
    let mut composite = vec![false; size];
    let mut count = 0;
    for n in 2..size {
        if composite[n] {
            continue;
        }
        if ending() {
            return None;
        }
        count += 1;
        for multiple in (n..size).step_by(n).skip(1) {
            composite[multiple] = true;
        }
    }
    Some(count)
}

#[cfg(test)]
mod tests {
    #[test]
    fn primes_are_counted() {
        assert_eq!(super::count_primes(100), Some(25));
        assert_eq!(super::count_primes(1), Some(0));
    }
}
