//! Shamir's secret sharing over GF(2^8) with AES's polynomial, as SOPS splits a data key among key groups.

/// The secret that shares hold; the last byte of each is its place. `None` where they do not fit together.
pub(crate) fn combine(shares: &[Vec<u8>]) -> Option<Vec<u8>> {
    let length = shares.first()?.len().checked_sub(1)?;
    if shares.iter().any(|share| share.len() != length + 1) {
        return None;
    }
    let places: Vec<u8> = shares.iter().map(|share| share[length]).collect();
    let distinct = (0..places.len()).all(|at| places[at] != 0 && !places[..at].contains(&places[at]));
    if !distinct {
        return None;
    }
    // Lagrange's polynomials at zero.
    let weights: Vec<u8> = places
        .iter()
        .map(|place| {
            places
                .iter()
                .filter(|other| *other != place)
                .fold(1, |weight, other| {
                    multiply(weight, multiply(*other, inverse(other ^ place)))
                })
        })
        .collect();
    Some(
        (0..length)
            .map(|at| {
                shares
                    .iter()
                    .zip(&weights)
                    .fold(0, |sum, (share, weight)| sum ^ multiply(share[at], *weight))
            })
            .collect(),
    )
}

fn multiply(mut a: u8, mut b: u8) -> u8 {
    let mut product = 0;
    while b != 0 {
        if b & 1 == 1 {
            product ^= a;
        }
        let carry = a & 0x80 != 0;
        a <<= 1;
        if carry {
            a ^= 0x1b;
        }
        b >>= 1;
    }
    product
}

fn inverse(a: u8) -> u8 {
    // a^254, for a^255 is 1.
    (0..6)
        .fold((multiply(a, a), multiply(a, a)), |(power, product), _| {
            let power = multiply(power, power);
            (power, multiply(product, power))
        })
        .1
}
