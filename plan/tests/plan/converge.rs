//! Plans applied in any order of events end where they should, and never cost more than they may.

use crate::support::{Machine, wanted};
use expect_test::{Expect, expect};
use jiff::Timestamp;
use model::{Action, ContainerState, PodPhase};
use plan::{Verdict, plan, verdict, workloads};
use proptest::prelude::*;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn web(version: &str, replicas: u32, surge: &str, unavailable: &str) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: web}}}}
  strategy: {{rollingUpdate: {{maxSurge: {surge}, maxUnavailable: {unavailable}}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec: {{containers: [{{name: web, image: 'r.example/web:{version}'}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec: {{selector: {{app: web}}, ports: [{{port: 80, targetPort: 8080}}]}}"
    )
}

fn settle(machine: &mut Machine, yaml: &str) {
    let wanted = wanted(yaml);
    for _ in 0..50 {
        machine.bury();
        (0..machine.seen.pods.len()).for_each(|i| machine.ready(i));
        let (next, _) = plan(&wanted, &machine.seen, NOW);
        next.steps.iter().for_each(|step| machine.apply(step));
        if next.steps.is_empty() {
            return;
        }
    }
    panic!("no rest after 50 plans: {:?}", machine.names());
}

#[track_caller]
fn check_steps(machine: &Machine, yaml: &str, want: Expect) {
    let (next, why) = plan(&wanted(yaml), &machine.seen, NOW);
    let mut text = String::new();
    for step in &next.steps {
        let what = match &step.action {
            Action::StopPod { pod, .. } => format!("stop {pod}"),
            Action::StartPod { pod } => format!("start {}", pod.id),
            Action::Publish { services } if services.is_empty() => "publish the empty table".to_owned(),
            Action::Publish { services } => {
                format!("publish {} -> {}", services[0].name, services[0].endpoints.len())
            }
            Action::RefreshFiles { pod, .. } => format!("refresh {pod}"),
            Action::Pull { image, .. } => format!("pull {image}"),
        };
        text.push_str(&format!("{what} ({:?})\n", step.because));
    }
    why.lines
        .iter()
        .for_each(|line| text.push_str(&format!("# {}: {}\n", line.about, line.because)));
    want.assert_eq(&text);
}

#[test]
fn a_new_version_rolls_through() {
    let mut machine = Machine::default();
    settle(&mut machine, &web("1", 2, "1", "0"));
    check_steps(
        &machine,
        &web("2", 2, "1", "0"),
        expect![[r#"
            start default/web-bab4f0fa-0 (Replaced)
            # Deployment.apps/default/web: 0 of 2 ready on the current template, 2 of the old one left (surge 1, unavailable 0), starting 1
        "#]],
    );
    settle(&mut machine, &web("2", 2, "1", "0"));
    assert_eq!(machine.names().len(), 2);
    check_steps(
        &machine,
        &web("2", 2, "1", "0"),
        expect![[r#"
            # Deployment.apps/default/web: 2 of 2 ready
        "#]],
    );
}

#[test]
fn what_the_generation_no_longer_names_is_removed() {
    let mut machine = Machine::default();
    settle(&mut machine, &web("1", 1, "1", "0"));
    check_steps(
        &machine,
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: empty}",
        expect![[r#"
            stop default/web-fb010403-0 (Pruned)
            publish the empty table (Changed)
            # Deployment.apps/default/web: the generation no longer names it
        "#]],
    );
}

#[test]
fn a_changed_config_map_refreshes_files_and_rolls_what_reads_it_as_environment() {
    let yaml = |text: &str| {
        format!(
            "apiVersion: v1
kind: ConfigMap
metadata: {{name: conf}}
data: {{motd: {text}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: filer}}
spec:
  containers: [{{name: a, image: 'r.example/a:1', volumeMounts: [{{name: c, mountPath: /c}}]}}]
  volumes: [{{name: c, configMap: {{name: conf}}}}]
---
apiVersion: v1
kind: Pod
metadata: {{name: reader}}
spec:
  containers: [{{name: a, image: 'r.example/a:1', envFrom: [{{configMapRef: {{name: conf}}}}]}}]"
        )
    };
    let mut machine = Machine::default();
    settle(&mut machine, &yaml("one"));
    check_steps(
        &machine,
        &yaml("two"),
        expect![[r#"
            stop default/reader (Replaced)
            refresh default/filer (Changed)
            # Pod/default/filer: Running
            # Pod/default/reader: waiting for the old pod to stop
        "#]],
    );
}

#[test]
fn a_job_retries_with_back_off_and_gives_up() {
    let yaml = "apiVersion: batch/v1
kind: Job
metadata: {name: once}
spec:
  backoffLimit: 1
  template: {spec: {restartPolicy: Never, containers: [{name: a, image: 'r.example/a:1'}]}}";
    let wanted = wanted(yaml);
    let mut machine = Machine::default();
    for failures in 0..2u32 {
        let late = NOW + jiff::SignedDuration::from_secs(100);
        let (next, _) = plan(&wanted, &machine.seen, NOW);
        assert_eq!(
            next.steps
                .iter()
                .any(|s| matches!(s.action, Action::StartPod { .. })),
            failures == 0
        );
        let (next, _) = plan(&wanted, &machine.seen, late);
        next.steps.iter().for_each(|step| machine.apply(step));
        let pod = machine.pod(|p| p.phase == PodPhase::Running);
        pod.phase = PodPhase::Failed;
        pod.containers[0].state = ContainerState::Exited {
            code: 1,
            reason: "Error".to_owned(),
            at: NOW,
        };
    }
    let status = workloads(&wanted, &machine.seen);
    assert_eq!(
        verdict(&status),
        Verdict::Failed("Job.batch/default/once: BackoffLimitExceeded: 2 pods failed".to_owned())
    );
}

proptest! {
    /// Whatever becomes ready or is buried when, a roll-out between any two states keeps its bounds and ends.
    #[test]
    fn roll_outs_keep_their_bounds_and_converge(
        before in 1u32..5, after in 0u32..5, surge in 0u32..3, unavailable in 0u32..3,
        happenings in prop::collection::vec((0u8..3, 0usize..8), 0..60),
    ) {
        let (surge, unavailable) = (surge.to_string(), unavailable.to_string());
        let mut machine = Machine::default();
        settle(&mut machine, &web("1", before, &surge, &unavailable));
        let yaml = web("2", after, &surge, &unavailable);
        let goal = wanted(&yaml);
        let plan::Run::Replicas { rolling, .. } = goal.workloads[0].run else { panic!("a Deployment") };
        for (what, index) in happenings {
            match what {
                0 => machine.bury(),
                1 => machine.ready(index),
                _ => {
                    let available = machine.seen.pods.iter().filter(|p| p.ready()).count() as u32;
                    let (next, _) = plan(&goal, &machine.seen, NOW);
                    next.steps.iter().for_each(|step| machine.apply(step));
                    let left = machine.seen.pods.iter().filter(|p| p.ready()).count() as u32;
                    let floor = after.saturating_sub(rolling.unavailable);
                    prop_assert!(left >= available.min(floor), "{left} ready left of {available}, floor {floor}");
                    let live = machine.seen.pods.iter().filter(|p| !p.terminating).count() as u32;
                    prop_assert!(live <= (after + rolling.surge).max(before), "{live} pods");
                }
            }
        }
        settle(&mut machine, &yaml);
        prop_assert_eq!(machine.seen.pods.len() as u32, after);
        prop_assert!(machine.seen.pods.iter().all(|p| p.template == goal.workloads[0].template.template));
        prop_assert_eq!(verdict(&workloads(&goal, &machine.seen)), Verdict::Healthy);
    }
}
