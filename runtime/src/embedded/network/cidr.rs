//! A range of IPv4 addresses.

use serde::{Deserialize, Serialize};
use std::{fmt, net::Ipv4Addr, str::FromStr};

/// An IPv4 range such as `10.46.0.0/16` (RFC 4632); made only by parsing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    base: u32,
    prefix: u8,
}

/// Why a text is no range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an IPv4 range: write it as 10.46.0.0/16, with no bits set after the prefix")]
pub struct BadCidr(String);

impl Cidr {
    /// Length of the network part, in bits.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// Number of addresses.
    pub fn size(self) -> u64 {
        1 << (32 - u32::from(self.prefix))
    }

    /// Whether `address` lies in it.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        u64::from(u32::from(address).wrapping_sub(self.base)) < self.size()
    }

    /// Whether the two share an address.
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(Ipv4Addr::from(other.base)) || other.contains(Ipv4Addr::from(self.base))
    }

    /// The address at `index`, counted from the base, wrapping within the range.
    pub fn at(self, index: u64) -> Ipv4Addr {
        let offset = u32::try_from(index % self.size()).expect("an index below 2^32");
        Ipv4Addr::from(self.base.wrapping_add(offset))
    }

    /// The range of `prefix` bits that holds `address`.
    pub(super) fn around(address: Ipv4Addr, prefix: u8) -> Self {
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
        Self {
            base: u32::from(address) & mask,
            prefix,
        }
    }
}

impl FromStr for Cidr {
    type Err = BadCidr;

    fn from_str(text: &str) -> Result<Self, BadCidr> {
        let bad = || BadCidr(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(bad)?;
        let address: Ipv4Addr = address.parse().map_err(|_| bad())?;
        let prefix: u8 = prefix.parse().map_err(|_| bad())?;
        if prefix > 32 {
            return Err(bad());
        }
        let range = Self::around(address, prefix);
        if range.base == u32::from(address) {
            Ok(range)
        } else {
            Err(bad())
        }
    }
}

impl TryFrom<String> for Cidr {
    type Error = BadCidr;

    fn try_from(text: String) -> Result<Self, BadCidr> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(range: Cidr) -> Self {
        range.to_string()
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.base), self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_knows_its_own() {
        let range: Cidr = "10.46.0.0/16".parse().unwrap();
        assert!(range.contains(Ipv4Addr::new(10, 46, 255, 255)));
        assert!(!range.contains(Ipv4Addr::new(10, 47, 0, 0)));
        assert_eq!(range.at(65_537), Ipv4Addr::new(10, 46, 0, 1));
        assert!(range.overlaps("10.0.0.0/8".parse().unwrap()));
        assert!(range.overlaps("0.0.0.0/0".parse().unwrap()));
        assert!(!range.overlaps("10.47.0.0/16".parse().unwrap()));
        for bad in ["10.46.0.0", "10.46.0.1/16", "10.46.0.0/33", "::/0", "10.46/16"] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }
}
