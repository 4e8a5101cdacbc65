//! What every engine must do, as tests over the trait alone.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use model::{
    Action, Because, ContainerRun, ContainerState, Digest, ObjectKey, Observed, PodId, PodObserved, PodPhase,
    PodRun, PullPolicy, Resources, RestartPolicy, Security, Step,
};
use runtime::logs::Grep;
use runtime::{Engine, LogQuery};
use std::collections::BTreeMap;
use std::time::Duration;

/// Longer than any wait on a loaded machine.
const DEADLINE: Duration = Duration::from_secs(60);

pub fn key(name: &str) -> ObjectKey {
    ObjectKey {
        group: "apps".to_owned(),
        kind: "Deployment".to_owned(),
        namespace: "default".to_owned(),
        name: name.to_owned(),
    }
}

pub fn id(name: &str) -> PodId {
    PodId {
        namespace: "default".to_owned(),
        name: name.to_owned(),
    }
}

/// A container that runs a shell script.
pub fn container(name: &str, script: &str) -> ContainerRun {
    ContainerRun {
        name: name.to_owned(),
        image: "registry.test/busybox:1".parse().unwrap(),
        pull: PullPolicy::IfNotPresent,
        command: vec!["/bin/sh".to_owned(), "-c".to_owned()],
        args: vec![script.to_owned()],
        env: Vec::new(),
        working_dir: None,
        ports: Vec::new(),
        resources: Resources::default(),
        mounts: Vec::new(),
        liveness: None,
        readiness: None,
        startup: None,
        security: Security::default(),
    }
}

/// A pod of one container that runs a shell script.
pub fn pod(name: &str, restart: RestartPolicy, script: &str) -> PodRun {
    PodRun {
        id: id(name),
        owner: key(name),
        template: Digest::of(script.as_bytes()),
        labels: BTreeMap::from([("app".to_owned(), name.to_owned())]),
        annotations: BTreeMap::new(),
        host_network: false,
        share_process_namespace: false,
        restart,
        grace_seconds: 1,
        active_deadline_seconds: None,
        init_containers: Vec::new(),
        containers: vec![container("main", script)],
        volumes: Vec::new(),
        host_aliases: Vec::new(),
        hostname: None,
        pull_secrets: Vec::new(),
    }
}

pub fn start(run: &PodRun) -> Step {
    Step {
        action: Action::StartPod {
            pod: Box::new(run.clone()),
        },
        about: run.owner.clone(),
        because: Because::Missing,
    }
}

pub fn stop(name: &str) -> Step {
    Step {
        action: Action::StopPod {
            pod: id(name),
            grace_seconds: 1,
        },
        about: key(name),
        because: Because::Pruned,
    }
}

pub fn find<'a>(seen: &'a Observed, name: &str) -> Option<&'a PodObserved> {
    seen.pods.iter().find(|pod| pod.id == id(name))
}

/// Looks until what is seen is right; panics with the last sight after a generous while.
pub async fn until(engine: &impl Engine, what: &str, right: impl Fn(&Observed) -> bool) -> Observed {
    let mut last = Observed::default();
    let wait = async {
        loop {
            last = engine.observe().await.unwrap();
            if right(&last) {
                return;
            }
            engine.changed().await;
        }
    };
    if tokio::time::timeout(DEADLINE, wait).await.is_err() {
        panic!("not seen in time: {what}; last seen {last:#?}");
    }
    last
}

pub async fn output(engine: &impl Engine, query: &LogQuery) -> String {
    let mut receiver = engine.logs(query).await.unwrap();
    let mut text = Vec::new();
    while let Some(chunk) = receiver.recv().await {
        text.extend_from_slice(&chunk);
    }
    String::from_utf8(text).unwrap()
}

fn running(pod: &PodObserved) -> bool {
    pod.containers
        .iter()
        .all(|c| matches!(c.state, ContainerState::Running { .. }))
}

/// A pod runs, is seen, speaks, is stopped and gone; each step twice, as a repeated step is no error.
pub async fn a_pod_lives_and_goes(engine: &impl Engine) {
    let run = pod("lives", RestartPolicy::Always, "echo hello; sleep 1000");
    engine.apply(&start(&run)).await.unwrap();
    engine.apply(&start(&run)).await.unwrap();
    let seen = engine.observe().await.unwrap();
    let one = find(&seen, "lives").expect("seen at once after the step");
    assert!(running(one), "{one:?}");
    assert_eq!(
        (&one.owner, one.template, &one.labels),
        (&run.owner, run.template, &run.labels)
    );
    assert_eq!(
        (one.phase, one.files),
        (PodPhase::Running, model::files_digest(&[]))
    );

    let mut query = LogQuery::of(id("lives"));
    query.follow = true;
    let mut receiver = engine.logs(&query).await.unwrap();
    assert_eq!(receiver.recv().await.unwrap(), "hello\n");
    drop(receiver);
    let mut chosen = LogQuery::of(id("lives"));
    chosen.grep = Some(Grep::parse("^h.*o$").unwrap());
    assert_eq!(output(engine, &chosen).await, "hello\n");
    chosen.json = true;
    let line: serde_json::Value = serde_json::from_str(&output(engine, &chosen).await).unwrap();
    assert_eq!(
        (&line["message"], &line["pod"], &line["run"]),
        (&"hello".into(), &"lives".into(), &0.into())
    );
    chosen.until = Some(jiff::Timestamp::UNIX_EPOCH);
    assert_eq!(output(engine, &chosen).await, "");

    engine.apply(&stop("lives")).await.unwrap();
    engine.apply(&stop("lives")).await.unwrap();
    assert_eq!(find(&engine.observe().await.unwrap(), "lives"), None);
    assert!(
        engine.logs(&query).await.is_err(),
        "a pod that is gone has no logs"
    );
}

/// Exit codes decide phase and restarts by policy.
pub async fn exit_codes_are_told(engine: &impl Engine) {
    for (name, policy, script, phase, code) in [
        (
            "ok",
            RestartPolicy::OnFailure,
            "echo done; exit 0",
            PodPhase::Succeeded,
            0,
        ),
        ("bad", RestartPolicy::Never, "exit 7", PodPhase::Failed, 7),
    ] {
        engine.apply(&start(&pod(name, policy, script))).await.unwrap();
        let seen = until(engine, name, |seen| {
            find(seen, name).is_some_and(|p| p.phase == phase)
        })
        .await;
        match &find(&seen, name).unwrap().containers[0].state {
            ContainerState::Exited { code: seen, .. } => assert_eq!(*seen, code),
            other => panic!("{name}: {other:?}"),
        }
    }
    assert_eq!(output(engine, &LogQuery::of(id("ok"))).await, "done\n");
    for name in ["ok", "bad"] {
        engine.apply(&stop(name)).await.unwrap();
    }
    assert!(engine.observe().await.unwrap().pods.is_empty());
}

/// A crashing container comes back by itself, is counted, and keeps the output of the run before.
pub async fn a_crash_is_restarted(engine: &impl Engine) {
    let run = pod("crash", RestartPolicy::Always, "echo once; sleep 0.3; exit 3");
    engine.apply(&start(&run)).await.unwrap();
    let seen = until(engine, "two restarts", |seen| {
        find(seen, "crash").is_some_and(|p| p.containers[0].restarts >= 2)
    })
    .await;
    let one = find(&seen, "crash").unwrap();
    assert_eq!(one.phase, PodPhase::Running);
    assert_eq!(one.containers[0].last_exit, Some((3, "Error".to_owned())));
    let mut query = LogQuery::of(id("crash"));
    query.previous = true;
    assert_eq!(output(engine, &query).await, "once\n");
    engine.apply(&stop("crash")).await.unwrap();
}

/// A pod that runs cannot be started from another template; one that ended is replaced.
pub async fn a_name_holds_one_pod(engine: &impl Engine) {
    engine
        .apply(&start(&pod("name", RestartPolicy::Never, "sleep 1000")))
        .await
        .unwrap();
    let other = pod("name", RestartPolicy::Never, "exit 0");
    let refusal = engine.apply(&start(&other)).await.unwrap_err().to_string();
    assert!(
        refusal.contains("default/name") && refusal.contains("stop it first"),
        "{refusal}"
    );
    engine.apply(&stop("name")).await.unwrap();
    engine.apply(&start(&other)).await.unwrap();
    until(engine, "end", |seen| {
        find(seen, "name").is_some_and(|p| p.phase == PodPhase::Succeeded)
    })
    .await;
    engine
        .apply(&start(&pod("name", RestartPolicy::Never, "sleep 1000")))
        .await
        .unwrap();
    until(engine, "new run", |seen| find(seen, "name").is_some_and(running)).await;
    engine.apply(&stop("name")).await.unwrap();
}

/// Events come once, in order, and outlive their pod until they are acknowledged.
pub async fn events_are_told_once(engine: &impl Engine) {
    engine
        .apply(&start(&pod("told", RestartPolicy::Always, "sleep 1000")))
        .await
        .unwrap();
    engine.apply(&stop("told")).await.unwrap();
    let mut read = BTreeMap::new();
    let (mut reasons, mut source) = (Vec::new(), String::new());
    for event in engine.events(&read).await.unwrap() {
        let last = read.insert(event.source.clone(), event.position).unwrap_or(0);
        assert_eq!(event.position, last + 1, "no gap, no repetition");
        if event.event.about == "Pod/default/told" {
            source.clone_from(&event.source);
            reasons.push(event.event.reason);
        }
    }
    let at = |reason: &str| reasons.iter().position(|r| r == reason);
    assert!(
        at("Started").is_some() && at("Started") < at("Killing"),
        "{reasons:?}"
    );
    assert!(engine.sources().await.unwrap().contains(&source));
    assert_eq!(engine.events(&read).await.unwrap(), []);
    assert!(
        !engine.sources().await.unwrap().contains(&source),
        "a journal that is told goes with its pod"
    );
}

/// An image that cannot be had is told by name, and nothing is left behind.
pub async fn a_missing_image_is_named(engine: &impl Engine) {
    let mut run = pod("noimage", RestartPolicy::Always, "sleep 1000");
    run.containers[0].image = "registry.test/missing:1".parse().unwrap();
    let refusal = engine.apply(&start(&run)).await.unwrap_err().to_string();
    assert!(refusal.contains("registry.test/missing:1"), "{refusal}");
    assert_eq!(find(&engine.observe().await.unwrap(), "noimage"), None);
}

/// All of the above.
pub async fn all(engine: &impl Engine) {
    a_pod_lives_and_goes(engine).await;
    exit_codes_are_told(engine).await;
    a_crash_is_restarted(engine).await;
    a_name_holds_one_pod(engine).await;
    events_are_told_once(engine).await;
    a_missing_image_is_named(engine).await;
}
