//! Probes that a shim runs.

use crate::contract::{find, pod, start, stop, until};
use crate::rig::{Rig, on_device};
use model::{Probe, ProbeKind, RestartPolicy};
use runtime::Engine as _;
use std::collections::BTreeMap;

fn probe(kind: ProbeKind) -> Option<Probe> {
    Some(Probe {
        kind,
        initial_delay_seconds: 0,
        period_seconds: 1,
        timeout_seconds: 5,
        failure_threshold: 1,
        success_threshold: 1,
    })
}

fn exec(script: &str) -> Option<Probe> {
    probe(ProbeKind::Exec {
        command: vec!["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()],
    })
}

#[tokio::test]
async fn root_startup_then_readiness_then_liveness() {
    let Some(rig) = Rig::new() else { return };
    let engine = rig.open().await;
    let script =
        "sleep 1; touch /tmp/started; sleep 1; touch /tmp/ready; sleep 2; touch /tmp/dead; sleep 1000";
    let mut run = pod("probed", RestartPolicy::Always, script);
    run.grace_seconds = 0;
    let main = &mut run.containers[0];
    main.startup = exec("test -e /tmp/started");
    main.startup.as_mut().unwrap().failure_threshold = 60;
    main.readiness = exec("test -e /tmp/ready");
    main.liveness = exec("test ! -e /tmp/dead");
    engine.apply(&start(&run)).await.unwrap();
    let first = engine.observe().await.unwrap();
    let main = find(&first, "probed").unwrap().containers[0].clone();
    assert!(!main.started && !main.ready, "{main:?}");
    let one = |name: &'static str| {
        move |seen: &model::Observed| {
            find(seen, "probed")
                .map(|p| p.containers[0].clone())
                .is_some_and(|c| match name {
                    "started" => c.started && !c.ready,
                    "ready" => c.ready,
                    _ => c.restarts == 1 && !c.ready,
                })
        }
    };
    until(&engine, "started", one("started")).await;
    until(&engine, "ready", one("ready")).await;
    let seen = until(&engine, "restarted by its liveness probe", one("restarted")).await;
    assert_eq!(
        find(&seen, "probed").unwrap().containers[0].last_exit,
        Some((137, "Error".to_owned()))
    );
    let events = engine.events(&BTreeMap::new()).await.unwrap();
    let unhealthy: Vec<_> = events
        .iter()
        .filter(|e| e.event.reason == "Unhealthy")
        .map(|e| &e.event.message)
        .collect();
    assert!(
        unhealthy
            .iter()
            .any(|message| message.starts_with("Liveness probe of container main")),
        "{unhealthy:?}"
    );
    engine.apply(&stop("probed")).await.unwrap();
    drop(engine);
    rig.nothing_is_left();
}

/// A probe that hangs counts as failed and leaves no process behind.
#[tokio::test]
async fn root_a_probe_that_hangs_is_ended() {
    let Some(rig) = Rig::new() else { return };
    let engine = rig.open().await;
    let mut run = pod("hanging", RestartPolicy::Always, "sleep 1000");
    run.containers[0].readiness = exec("sleep 987");
    run.containers[0].readiness.as_mut().unwrap().timeout_seconds = 1;
    engine.apply(&start(&run)).await.unwrap();
    let told = async {
        loop {
            let events = engine.events(&BTreeMap::new()).await.unwrap();
            if events.iter().any(|e| e.event.reason == "Unhealthy") {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), told)
        .await
        .unwrap();
    engine.apply(&stop("hanging")).await.unwrap();
    drop(engine);
    rig.nothing_is_left();
}

#[test]
fn root_netns_http_and_tcp_probes_reach_the_pod() {
    on_device(async |rig| {
        let (engine, _network) = rig.open_with_network().await;
        let script = "mkdir /tmp/www; sleep 1; httpd -p 80 -h /tmp/www; sleep 1; echo ok > /tmp/www/healthy; sleep 1000";
        let mut run = pod("web", RestartPolicy::Always, script);
        run.containers[0].startup = probe(ProbeKind::TcpSocket { port: 80 });
        run.containers[0].startup.as_mut().unwrap().failure_threshold = 60;
        run.containers[0].readiness = probe(ProbeKind::HttpGet {
            path: "/healthy".to_owned(),
            port: 80,
            headers: Vec::new(),
            https: false,
        });
        engine.apply(&start(&run)).await.unwrap();
        until(&engine, "started", |seen| {
            find(seen, "web").is_some_and(|p| p.containers[0].started && !p.ready())
        })
        .await;
        until(&engine, "ready", |seen| {
            find(seen, "web").is_some_and(model::PodObserved::ready)
        })
        .await;
        engine.apply(&stop("web")).await.unwrap();
        drop(engine);
        rig.nothing_is_left();
    });
}
