//! Ranges of semantic versions as Flux reads them, which is as Go's Masterminds/semver 3.4 does.
//!
//! `>=1.0.0 <2`, `~1.2`, `^1`, `1.x`, `1.2 - 1.4`, `||` between alternatives. It differs from Cargo's ranges: a bare
//! version is exact, a partial one is a wildcard, and pre-releases count only where the range names one.

use semver::Version;
use std::cmp::Ordering;
use std::str::FromStr;

/// A parsed range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// One of these has to hold.
    any: Vec<Vec<Comparator>>,
}

/// Why a text is no range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{part:?} is no comparison of versions; write for example `>=1.2.0 <2`, `~1.2`, `^1`, `1.x` or `1.2 - 1.4`"
)]
pub struct BadRange {
    part: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Equal,
    NotEqual,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    Tilde,
    Caret,
}

/// How many of the three numbers were written; the rest are wildcards, held as zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Written {
    None,
    Major,
    Minor,
    All,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Comparator {
    op: Op,
    version: Version,
    written: Written,
}

impl Range {
    /// Whether `version` lies within the range.
    pub fn matches(&self, version: &Version) -> bool {
        self.any.iter().any(|all| {
            // One comparison that names a pre-release opens its whole alternative to them.
            let opened = all.iter().any(|c| !c.version.pre.is_empty());
            all.iter().all(|c| c.matches(version, opened))
        })
    }
}

/// A tag as a version: three numbers, with `v` before them or not; Flux skips any other tag.
pub(crate) fn version_of_tag(tag: &str) -> Option<Version> {
    Version::parse(tag.strip_prefix('v').unwrap_or(tag)).ok()
}

impl Comparator {
    fn matches(&self, v: &Version, pre_releases: bool) -> bool {
        let c = &self.version;
        if !v.pre.is_empty() && !pre_releases {
            return false;
        }
        // Build metadata has no part in precedence.
        let order = v.cmp_precedence(c);
        match self.op {
            Op::Equal if self.written == Written::All => order == Ordering::Equal,
            Op::Equal => self.tilde(v, order),
            Op::NotEqual => match self.written {
                Written::All => order != Ordering::Equal,
                Written::Minor => (v.major, v.minor) != (c.major, c.minor),
                Written::Major => v.major != c.major,
                Written::None => false,
            },
            Op::Greater => match self.written {
                Written::All => order == Ordering::Greater,
                Written::Minor => (v.major, v.minor) > (c.major, c.minor),
                Written::Major | Written::None => v.major > c.major,
            },
            Op::GreaterOrEqual => order != Ordering::Less,
            Op::Less => order == Ordering::Less,
            Op::LessOrEqual => match self.written {
                Written::All => order != Ordering::Greater,
                Written::Minor => (v.major, v.minor) <= (c.major, c.minor),
                Written::Major => v.major <= c.major,
                Written::None => true,
            },
            Op::Tilde => self.tilde(v, order),
            Op::Caret => self.caret(v, order),
        }
    }

    /// `~1.2.3` stays within 1.2, `~1` within 1.
    fn tilde(&self, v: &Version, order: Ordering) -> bool {
        let c = &self.version;
        if self.written == Written::None {
            return true;
        }
        order != Ordering::Less
            && v.major == c.major
            && (self.written == Written::Major || v.minor == c.minor)
    }

    /// `^1.2.3` keeps the first number that is not zero.
    fn caret(&self, v: &Version, order: Ordering) -> bool {
        let c = &self.version;
        if self.written == Written::None {
            return true;
        }
        if order == Ordering::Less || v.major != c.major {
            return false;
        }
        if c.major > 0 || self.written == Written::Major {
            return true;
        }
        if v.minor != c.minor {
            return false;
        }
        c.minor > 0 || self.written == Written::Minor || v.patch == c.patch
    }
}

impl FromStr for Range {
    type Err = BadRange;

    fn from_str(text: &str) -> Result<Self, BadRange> {
        let any = text.split("||").map(alternative).collect::<Result<_, _>>()?;
        Ok(Self { any })
    }
}

fn alternative(text: &str) -> Result<Vec<Comparator>, BadRange> {
    let bad = |part: &str| BadRange {
        part: part.to_owned(),
    };
    let mut words = text
        .split([' ', '\t', ','])
        .filter(|word| !word.is_empty())
        .peekable();
    let mut all = Vec::new();
    while let Some(word) = words.next() {
        let (op, rest) = operator(word).ok_or_else(|| bad(word))?;
        // An operator may stand apart from its version.
        let rest = if rest.is_empty() {
            words.next().ok_or_else(|| bad(word))?
        } else {
            rest
        };
        if words.peek() == Some(&"-") {
            words.next();
            let upper = words.next().ok_or_else(|| bad(text))?;
            if op != Op::Equal || rest.len() != word.len() {
                return Err(bad(word));
            }
            all.push(comparator(Op::GreaterOrEqual, rest).ok_or_else(|| bad(rest))?);
            all.push(comparator(Op::LessOrEqual, upper).ok_or_else(|| bad(upper))?);
        } else {
            all.push(comparator(op, rest).ok_or_else(|| bad(rest))?);
        }
    }
    if all.is_empty() { Err(bad(text)) } else { Ok(all) }
}

fn operator(word: &str) -> Option<(Op, &str)> {
    let start = word
        .find(|c: char| c.is_ascii_alphanumeric() || c == '*')
        .unwrap_or(word.len());
    let op = match &word[..start] {
        "" | "=" => Op::Equal,
        "!=" => Op::NotEqual,
        ">" => Op::Greater,
        ">=" | "=>" => Op::GreaterOrEqual,
        "<" => Op::Less,
        "<=" | "=<" => Op::LessOrEqual,
        "~" | "~>" => Op::Tilde,
        "^" => Op::Caret,
        _ => return None,
    };
    Some((op, &word[start..]))
}

fn comparator(op: Op, text: &str) -> Option<Comparator> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let (numbers, suffix) = text.split_at(text.find(['-', '+']).unwrap_or(text.len()));
    let mut parts = [0_u64; 3];
    let mut written = 0;
    let mut open = false;
    for (i, part) in numbers.split('.').enumerate() {
        let slot = parts.get_mut(i)?;
        if matches!(part, "x" | "X" | "*") {
            open = true;
        } else if !open {
            *slot = part.parse().ok()?;
            written = i + 1;
        } else {
            // What follows a wildcard has no meaning (`1.x.3`), but has to be a number.
            part.parse::<u64>().ok()?;
        }
    }
    let [major, minor, patch] = parts;
    Some(Comparator {
        op,
        version: Version::parse(&format!("{major}.{minor}.{patch}{suffix}")).ok()?,
        written: [Written::None, Written::Major, Written::Minor, Written::All][written],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(range: &str, inside: &[&str], outside: &[&str]) {
        let parsed: Range = range.parse().unwrap();
        for v in inside {
            assert!(
                parsed.matches(&Version::parse(v).unwrap()),
                "{v} should be in {range}"
            );
        }
        for v in outside {
            assert!(
                !parsed.matches(&Version::parse(v).unwrap()),
                "{v} should not be in {range}"
            );
        }
    }

    #[test]
    fn ranges_are_read_as_flux_reads_them() {
        check(">=1.0.0 <2", &["1.0.0", "1.9.9"], &["0.9.9", "2.0.0", "2.1.0"]);
        check(">=1.0.0, <2.0.0", &["1.0.0"], &["2.0.0"]);
        check("> 1.2 , < 3", &["1.3.0"], &["1.2.5", "3.0.0"]);
        check("~1.2", &["1.2.0", "1.2.9"], &["1.1.9", "1.3.0", "2.2.0"]);
        check("~>1.2.3", &["1.2.3", "1.2.4"], &["1.2.2", "1.3.0"]);
        check("~1", &["1.0.0", "1.9.0"], &["2.0.0"]);
        check("^1", &["1.0.0", "1.99.0"], &["0.9.0", "2.0.0"]);
        check("^1.2.3", &["1.2.3", "1.9.0"], &["1.2.2", "2.0.0"]);
        check("^0.2.3", &["0.2.3", "0.2.9"], &["0.2.2", "0.3.0", "1.0.0"]);
        check("^0.0.3", &["0.0.3"], &["0.0.4", "0.1.3"]);
        check("^0.0", &["0.0.1"], &["0.1.0"]);
        check("^0", &["0.0.1", "0.9.0"], &["1.0.0"]);
        check("1.x", &["1.0.0", "1.9.0"], &["2.0.0"]);
        check("1.2.x", &["1.2.7"], &["1.3.0"]);
        check("1.2", &["1.2.0", "1.2.7"], &["1.3.0"]);
        check("1.2.3", &["1.2.3", "1.2.3+build"], &["1.2.4"]);
        check("v1.2.3", &["1.2.3"], &["1.2.4"]);
        check("*", &["0.0.1", "9.9.9"], &["1.0.0-rc.1"]);
        check("1.2 - 1.4.5", &["1.2.0", "1.4.5"], &["1.1.9", "1.4.6"]);
        check("1.2 - 1.4", &["1.4.9"], &["1.5.0"]);
        check("<1.1 || >=2 <3", &["1.0.0", "2.5.0"], &["1.1.0", "3.0.0"]);
        check("!=1.2.x", &["1.3.0", "2.0.0"], &["1.2.0", "1.2.9"]);
        check(">1", &["2.0.0"], &["1.0.1", "1.9.0"]);
        check("<=1", &["1.9.0", "0.1.0"], &["2.0.0"]);
    }

    #[test]
    fn pre_releases_count_only_where_the_range_names_one() {
        check(">=1.0.0", &["1.1.0"], &["1.1.0-rc.1"]);
        check(">=1.0.0-0", &["1.1.0", "1.1.0-rc.1"], &["0.9.0"]);
        check(
            ">1.0.0-beta.1 <2",
            &["1.0.0-beta.2", "1.5.0-rc.1", "1.0.0"],
            &["1.0.0-beta.1", "2.0.0"],
        );
        check(
            ">1.0.0-beta.1 <2 || >3",
            &["1.0.0-rc.1", "4.0.0"],
            &["4.0.0-rc.1"],
        );
        check("~1.2.0-0", &["1.2.0-rc.1", "1.2.1"], &["1.3.0"]);
        check("1.0.0-rc.1", &["1.0.0-rc.1"], &["1.0.0"]);
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for bad in [
            "", "  ", ">>1", "1.2.3.4", "a", ">=", "1 -", ">1 - 2", "1 ||", "^1.x.y",
        ] {
            assert!(bad.parse::<Range>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn tags_with_three_numbers_are_versions() {
        assert_eq!(version_of_tag("v1.2.3"), Version::parse("1.2.3").ok());
        assert!(version_of_tag("1.2").is_none() && version_of_tag("release-1.2.3").is_none());
    }

    proptest::proptest! {
        #[test]
        fn any_text_parses_or_is_refused(text in "[ -~]{0,30}") {
            let _ = text.parse::<Range>();
        }

        /// Cargo's ranges mean the same where neither a bare version nor a pre-release is in play.
        #[test]
        fn where_cargo_means_the_same_the_answer_is_the_same(
            op in "(\\^|~|>=|<|>|<=)",
            parts in proptest::collection::vec(0..4_u64, 2..=3),
            major in 0..4_u64, minor in 0..4_u64, patch in 0..4_u64,
        ) {
            let numbers: Vec<_> = parts.iter().map(u64::to_string).collect();
            let text = format!("{op}{}", numbers.join("."));
            let cargo: semver::VersionReq = text.parse().unwrap();
            let ours: Range = text.parse().unwrap();
            let version = Version::new(major, minor, patch);
            proptest::prop_assert_eq!(ours.matches(&version), cargo.matches(&version), "{} {}", text, version);
        }
    }
}
