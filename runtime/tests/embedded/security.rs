//! Who a container is and what it may do.

use crate::contract::{find, pod, start, stop};
use crate::rig::Rig;
use crate::run_to_end;
use model::RestartPolicy;
use runtime::Engine as _;

const WHO: &str = "id -u; id -g; grep -E 'CapBnd|CapEff|NoNewPrivs' /proc/self/status";

#[tokio::test]
async fn root_users_groups_and_capabilities_are_as_asked() {
    let Some(rig) = Rig::new() else { return };
    let engine = rig.open().await;
    let mut run = pod("default", RestartPolicy::Never, WHO);
    run.containers[0].security.allow_privilege_escalation = true;
    let (_, text) = run_to_end(&engine, &run).await;
    // CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE NET_RAW SYS_CHROOT MKNOD
    // AUDIT_WRITE SETFCAP
    assert_eq!(
        text,
        "0\n0\nCapEff:\t00000000a80425fb\nCapBnd:\t00000000a80425fb\nNoNewPrivs:\t0\n"
    );

    let mut run = pod(
        "user",
        RestartPolicy::Never,
        &format!("{WHO}; id -G; touch /x 2>/dev/null || echo refused"),
    );
    let security = &mut run.containers[0].security;
    (security.run_as_user, security.run_as_group, security.fs_group) = (Some(1000), Some(1001), Some(2000));
    security.cap_drop = vec!["ALL".to_owned()];
    security.cap_add = vec!["NET_BIND_SERVICE".to_owned()];
    let (_, text) = run_to_end(&engine, &run).await;
    assert!(
        text.starts_with(
            "1000\n1001\nCapEff:\t0000000000000000\nCapBnd:\t0000000000000400\nNoNewPrivs:\t1\n"
        ),
        "{text}"
    );
    assert!(
        text.contains("1001 2000\n") && text.ends_with("refused\n"),
        "{text}"
    );
}

#[tokio::test]
async fn root_the_root_file_system_can_be_read_only_and_proc_is_masked() {
    let Some(rig) = Rig::new() else { return };
    let engine = rig.open().await;
    let script = "touch /tmp/x || echo read-only; echo 1 > /proc/sys/kernel/panic || echo no sysctl; \
                  head -c 1 /proc/kcore | od -An -c; ls /proc/acpi 2>/dev/null; echo x > /dev/shm/x && echo shm; \
                  mount -t tmpfs x /tmp || echo no mount; mknod /dev/shm/sda b 8 0 && head -c 1 /dev/shm/sda || echo no disk";
    let mut run = pod("shut", RestartPolicy::Never, script);
    run.containers[0].security.read_only_root = true;
    run.containers[0].security.allow_privilege_escalation = true;
    let (_, text) = run_to_end(&engine, &run).await;
    for want in ["read-only\n", "no sysctl\n", "shm\n", "no mount\n", "no disk\n"] {
        assert!(text.contains(want), "{want:?} in {text}");
    }
}

#[tokio::test]
async fn root_a_user_that_must_not_be_root_is_refused() {
    let Some(rig) = Rig::new() else { return };
    let engine = rig.open().await;
    let mut run = pod("nobody", RestartPolicy::Always, "sleep 1000");
    run.containers[0].security.run_as_non_root = true;
    engine.apply(&start(&run)).await.unwrap();
    let seen = engine.observe().await.unwrap();
    let trouble = find(&seen, "nobody").unwrap().trouble.clone().unwrap();
    assert!(
        trouble.contains("runAsNonRoot") && trouble.contains("set runAsUser"),
        "{trouble}"
    );
    engine.apply(&stop("nobody")).await.unwrap();
    drop(engine);
    rig.nothing_is_left();
}

#[tokio::test]
async fn root_privileged_is_all_that_the_engine_has() {
    let Some(rig) = Rig::new() else { return };
    let engine = rig.open().await;
    let script = "mkdir /tmp/m && mount -t tmpfs x /tmp/m && echo mounted; grep NoNewPrivs /proc/self/status";
    let mut run = pod("all", RestartPolicy::Never, script);
    run.containers[0].security.privileged = true;
    let (_, text) = run_to_end(&engine, &run).await;
    assert_eq!(text, "mounted\nNoNewPrivs:\t0\n");
}

/// The default profile holds where capabilities alone would not, for probes too, and threads and processes go on.
#[tokio::test]
async fn root_the_default_seccomp_profile_confines() {
    let Some(rig) = Rig::new() else { return };
    let engine = rig.open().await;
    // A user namespace needs no capability: only the profile refuses it.
    let script = "grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status; unshare -U true 2>/dev/null && echo unshared; \
                  (echo child); sleep 0.1 & wait; echo done";
    let mut run = pod("free", RestartPolicy::Never, script);
    let (_, text) = run_to_end(&engine, &run).await;
    assert!(
        text.contains("Seccomp:\t0\n") && text.contains("unshared\n"),
        "{text}"
    );

    run.id = crate::contract::id("confined");
    run.containers[0].security.seccomp_default = true;
    run.containers[0].security.allow_privilege_escalation = true;
    let (_, text) = run_to_end(&engine, &run).await;
    assert!(text.starts_with("NoNewPrivs:\t1\nSeccomp:\t2\n"), "{text}");
    assert!(
        !text.contains("unshared") && text.ends_with("child\ndone\n"),
        "{text}"
    );
}
