//! Choosing an image for a machine.

use crate::oci::Descriptor;
use model::Platform;

/// The best of `offered` for `wanted`, or none that would run.
///
/// An architecture's variants run the programs of earlier ones: `arm/v7` takes `v7`, `v6`, `v5` in that order, and
/// `arm64` is `arm64/v8` whether or not either side says so. Another architecture is never chosen.
pub(crate) fn choose<'a>(offered: &'a [Descriptor], wanted: &Platform) -> Option<&'a Descriptor> {
    let ranked = offered.iter().filter_map(|descriptor| {
        let rank = suits(descriptor.platform.as_ref()?, wanted)?;
        Some((rank, descriptor))
    });
    // The first of equals, as the list's order is its author's preference.
    ranked
        .min_by_key(|(rank, _)| *rank)
        .map(|(_, descriptor)| descriptor)
}

/// How well `offered` runs on `wanted`: 0 is exact, `None` not at all.
pub(crate) fn suits(offered: &Platform, wanted: &Platform) -> Option<u32> {
    if offered.os != wanted.os || offered.architecture != wanted.architecture {
        return None;
    }
    level(wanted)?.checked_sub(level(offered)?)
}

/// The number in the variant; what an absent one stands for depends on the architecture.
fn level(platform: &Platform) -> Option<u32> {
    let variant = platform.variant.as_deref().filter(|variant| !variant.is_empty());
    match (variant, platform.architecture.as_str()) {
        (Some(variant), _) => variant.strip_prefix('v')?.split('.').next()?.parse().ok(),
        (None, "arm64") => Some(8),
        (None, "arm") => Some(7),
        (None, "amd64") => Some(1),
        (None, _) => Some(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Digest;

    fn platform(text: &str) -> Platform {
        let mut parts = text.split('/').map(str::to_owned);
        Platform {
            os: parts.next().unwrap(),
            architecture: parts.next().unwrap(),
            variant: parts.next(),
        }
    }

    #[track_caller]
    fn check(offered: &[&str], wanted: &str, want: Option<&str>) {
        let offered: Vec<_> = offered
            .iter()
            .map(|text| Descriptor {
                platform: Some(platform(text)),
                ..Descriptor::new("", Digest::of(text.as_bytes()), 1)
            })
            .collect();
        let chosen = choose(&offered, &platform(wanted));
        let chosen = chosen.map(|descriptor| descriptor.platform.as_ref().unwrap().to_string());
        assert_eq!(chosen.as_deref(), want);
    }

    #[test]
    fn the_nearest_variant_that_runs_is_chosen() {
        let usual = [
            "linux/amd64",
            "linux/arm/v5",
            "linux/arm/v6",
            "linux/arm/v7",
            "linux/arm64/v8",
        ];
        check(&usual, "linux/arm/v7", Some("linux/arm/v7"));
        check(&usual, "linux/arm", Some("linux/arm/v7"));
        check(&usual, "linux/arm/v6", Some("linux/arm/v6"));
        check(&usual[..3], "linux/arm/v7", Some("linux/arm/v6"));
        check(&usual, "linux/arm64", Some("linux/arm64/v8"));
        check(&["linux/arm64"], "linux/arm64/v8", Some("linux/arm64"));
        check(&["linux/arm64/v9"], "linux/arm64/v8", None);
        check(&usual, "linux/riscv64", None);
        check(
            &["windows/amd64", "linux/amd64/v3", "linux/amd64"],
            "linux/amd64",
            Some("linux/amd64"),
        );
        check(&["unknown/unknown"], "linux/amd64", None);
    }
}
