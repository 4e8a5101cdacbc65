//! The default seccomp profile: system calls that a container has no business with.
//!
//! It refuses what Docker's and containerd's default profiles refuse for want of a capability or altogether.
//! Unlike these it is a list of what is refused: a call that no profile knows yet goes through. A program for
//! another architecture than the device's own (32-bit on a 64-bit kernel) is ended by it.

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Refused whatever the container may do.
const ALWAYS: &[&str] = &[
    "add_key",
    "keyctl",
    "request_key",
    "userfaultfd",
    "io_uring_setup",
    "io_uring_enter",
    "io_uring_register",
    "kexec_file_load",
    "kexec_load",
    "nfsservctl",
    "swapon",
    "swapoff",
    "lookup_dcookie",
    "move_pages",
    "migrate_pages",
    "uselib",
    "ustat",
    "sysfs",
    "_sysctl",
];

/// Refused without the capability in front.
const WITHOUT: &[(&str, &[&str])] = &[
    (
        "CAP_SYS_ADMIN",
        &[
            "bpf",
            "fanotify_init",
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "perf_event_open",
            "pivot_root",
            "quotactl",
            "quotactl_fd",
            "setdomainname",
            "sethostname",
            "setns",
            "umount2",
            "unshare",
        ],
    ),
    ("CAP_DAC_READ_SEARCH", &["open_by_handle_at"]),
    ("CAP_SYS_BOOT", &["reboot"]),
    (
        "CAP_SYS_MODULE",
        &["delete_module", "init_module", "finit_module"],
    ),
    ("CAP_SYS_PACCT", &["acct"]),
    ("CAP_SYS_RAWIO", &["iopl", "ioperm"]),
    (
        "CAP_SYS_TIME",
        &["settimeofday", "clock_settime", "clock_settime64", "stime"],
    ),
    ("CAP_SYS_TTY_CONFIG", &["vhangup"]),
    ("CAP_SYSLOG", &["syslog"]),
];

/// Namespace flags of clone(2); a thread is made without them.
const NEW_NAMESPACES: &[i32] = &[
    libc::CLONE_NEWNS,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWCGROUP,
];

/// What the profile refuses to a container with these capabilities.
pub(crate) fn refused(capabilities: &[String]) -> Vec<&'static str> {
    let lacks = |capability: &str| !capabilities.iter().any(|held| held == capability);
    let without = WITHOUT
        .iter()
        .filter(|(capability, _)| lacks(capability))
        .flat_map(|(_, calls)| *calls);
    ALWAYS.iter().chain(without).copied().collect()
}

/// The profile as part of an OCI configuration (runtime-spec, `linux.seccomp`).
pub(crate) fn oci(refused: &[&str]) -> Value {
    let mut calls = vec![json!({"names": refused, "action": "SCMP_ACT_ERRNO", "errnoRet": libc::EPERM})];
    if refused.contains(&"unshare") {
        // Its flags lie in memory, where a filter cannot look: told to be absent, programs fall back on clone.
        calls.push(json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::ENOSYS}));
        calls.extend(NEW_NAMESPACES.iter().map(|flag| {
            json!({"names": ["clone"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::EPERM,
                   "args": [{"index": 0, "value": flag, "valueTwo": flag, "op": "SCMP_CMP_MASKED_EQ"}]})
        }));
    }
    json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": calls})
}

/// The names that a configuration made by [`oci`] refuses; `None` where it has no profile.
pub(super) fn of_config(config: &Value) -> Option<Vec<String>> {
    let names = config.pointer("/linux/seccomp/syscalls/0/names")?.as_array()?;
    Some(
        names
            .iter()
            .filter_map(|name| name.as_str().map(str::to_owned))
            .collect(),
    )
}

/// Confines the calling process, for good. It must have `no_new_privs` or CAP_SYS_ADMIN.
pub(super) fn confine(refused: &[String]) -> Result<(), String> {
    for program in programs(refused).map_err(|err| err.to_string())? {
        seccompiler::apply_filter(&program).map_err(|err| err.to_string())?;
    }
    Ok(())
}

fn programs(refused: &[String]) -> Result<Vec<BpfProgram>, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = refused
        .iter()
        .filter_map(|name| Some((number(name)?, Vec::new())))
        .collect();
    let mut absent = BTreeMap::new();
    if refused.iter().any(|name| name == "unshare") {
        let flagged = |flag: &i32| {
            let flag = u64::from(flag.unsigned_abs());
            let operator = SeccompCmpOp::MaskedEq(flag);
            SeccompRule::new(vec![SeccompCondition::new(
                0,
                SeccompCmpArgLen::Qword,
                operator,
                flag,
            )?])
        };
        let clone = NEW_NAMESPACES.iter().map(flagged).collect::<Result<_, _>>()?;
        rules.insert(libc::SYS_clone, clone);
        absent.insert(libc::SYS_clone3, Vec::new());
    }
    let filters = [(rules, libc::EPERM), (absent, libc::ENOSYS)];
    let programs = filters
        .into_iter()
        .filter(|(rules, _)| !rules.is_empty())
        .map(|(rules, errno)| {
            let refuse = SeccompAction::Errno(errno.unsigned_abs());
            let arch = TargetArch::try_from(std::env::consts::ARCH)?;
            SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch)?.try_into()
        });
    programs.collect()
}

/// The number of a system call on this architecture, where it has it.
fn number(name: &str) -> Option<i64> {
    #[cfg(target_arch = "x86_64")]
    let here: &[(&str, i64)] = &[
        ("uselib", libc::SYS_uselib),
        ("ustat", libc::SYS_ustat),
        ("sysfs", libc::SYS_sysfs),
        ("_sysctl", libc::SYS__sysctl),
        ("iopl", libc::SYS_iopl),
        ("ioperm", libc::SYS_ioperm),
        ("nfsservctl", libc::SYS_nfsservctl),
        ("lookup_dcookie", libc::SYS_lookup_dcookie),
        ("kexec_file_load", libc::SYS_kexec_file_load),
    ];
    #[cfg(not(target_arch = "x86_64"))]
    let here: &[(&str, i64)] = &[];
    let everywhere: &[(&str, i64)] = &[
        ("add_key", libc::SYS_add_key),
        ("keyctl", libc::SYS_keyctl),
        ("request_key", libc::SYS_request_key),
        ("userfaultfd", libc::SYS_userfaultfd),
        ("io_uring_setup", libc::SYS_io_uring_setup),
        ("io_uring_enter", libc::SYS_io_uring_enter),
        ("io_uring_register", libc::SYS_io_uring_register),
        ("kexec_load", libc::SYS_kexec_load),
        ("swapon", libc::SYS_swapon),
        ("swapoff", libc::SYS_swapoff),
        ("move_pages", libc::SYS_move_pages),
        ("migrate_pages", libc::SYS_migrate_pages),
        ("bpf", libc::SYS_bpf),
        ("fanotify_init", libc::SYS_fanotify_init),
        ("fsconfig", libc::SYS_fsconfig),
        ("fsmount", libc::SYS_fsmount),
        ("fsopen", libc::SYS_fsopen),
        ("fspick", libc::SYS_fspick),
        ("mount", libc::SYS_mount),
        ("mount_setattr", libc::SYS_mount_setattr),
        ("move_mount", libc::SYS_move_mount),
        ("open_tree", libc::SYS_open_tree),
        ("perf_event_open", libc::SYS_perf_event_open),
        ("pivot_root", libc::SYS_pivot_root),
        ("quotactl", libc::SYS_quotactl),
        ("quotactl_fd", libc::SYS_quotactl_fd),
        ("setdomainname", libc::SYS_setdomainname),
        ("sethostname", libc::SYS_sethostname),
        ("setns", libc::SYS_setns),
        ("umount2", libc::SYS_umount2),
        ("unshare", libc::SYS_unshare),
        ("open_by_handle_at", libc::SYS_open_by_handle_at),
        ("reboot", libc::SYS_reboot),
        ("delete_module", libc::SYS_delete_module),
        ("init_module", libc::SYS_init_module),
        ("finit_module", libc::SYS_finit_module),
        ("acct", libc::SYS_acct),
        ("settimeofday", libc::SYS_settimeofday),
        ("clock_settime", libc::SYS_clock_settime),
        ("vhangup", libc::SYS_vhangup),
        ("syslog", libc::SYS_syslog),
    ];
    here.iter()
        .chain(everywhere)
        .find(|(known, _)| *known == name)
        .map(|(_, number)| *number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capability_brings_its_calls_along() {
        let plain = refused(&["CAP_CHOWN".to_owned()]);
        assert!(plain.contains(&"mount") && plain.contains(&"reboot") && plain.contains(&"keyctl"));
        let admin = refused(&["CAP_SYS_ADMIN".to_owned()]);
        assert!(!admin.contains(&"mount") && admin.contains(&"reboot") && admin.contains(&"keyctl"));
    }

    #[test]
    fn the_configuration_and_the_filter_say_the_same() {
        let names = refused(&[]);
        let config = json!({"linux": {"seccomp": oci(&names)}});
        assert_eq!(of_config(&config).unwrap(), names);
        let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
        assert_eq!(
            programs(&names).unwrap().len(),
            2,
            "one for what is refused, one for clone3"
        );
        assert_eq!(of_config(&json!({"linux": {}})), None);
    }
}
