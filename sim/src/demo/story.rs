//! The chapters.

use super::{Check, stages, telemetry};
use crate::progress::Progress;
use crate::until::until;
use crate::world::{World, tail};
use crate::{apps, cgroups, fleet, http, local, process, rootless};
use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use model::{Phase, WorkloadState};
use std::collections::BTreeSet;
use std::future::Future;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};
use wire::ApiClient;
use wire::api::{DeviceSummary, Link};

/// A slow machine may take this long for what takes a second elsewhere.
pub(super) const PATIENT: Duration = Duration::from_secs(120);
/// NodePort of the example's `hello`.
pub(super) const HELLO_PORT: u16 = 30080;
/// The device whose link is cut.
pub(super) const LONELY: &str = "pi5-1";

/// Tells everything; the first failure ends it.
pub(super) async fn tell(
    world: &mut World,
    app: &Path,
    progress: &Progress,
    checks: &mut Vec<Check>,
) -> Result<()> {
    let mut story = Story { progress, checks };
    progress.chapter("A hub, a repository, images");
    let up = Instant::now();
    story.check("the hub is up", world.up()).await?;
    progress.step(&format!("hub up after {:.1} s", up.elapsed().as_secs_f32()));
    apps::init_repository(world)?;
    progress.step(&format!("leeward init {}", world.work_tree().display()));
    apps::push_images(world, app, apps::FIRST)?;
    apps::push_images(world, app, apps::SECOND)?;
    progress.step("images built from one static binary and pushed to the hub's registry");

    progress.chapter("Four devices enrol and run what Git says");
    let start = Instant::now();
    for gap in rootless::gaps() {
        progress.step(&format!("not to be had here: {gap}"));
    }
    for (name, class) in fleet() {
        world.add_device(&name, &class).await?;
        telemetry::measure_often(world, &name)?;
        world
            .start_agent(&name)?
            .iter()
            .for_each(|gap| progress.step(&format!("not limited: {gap}")));
        progress.step(&format!("{name} ({class}) switched on"));
    }
    let api = world.api()?;
    let all = |version: &'static str| fleet_runs(&api, version);
    story
        .check("four devices enrol, fetch, render, pull and run", async {
            all("1.0.0").await.map(took)
        })
        .await?;
    progress.step(&format!(
        "all ready {:.1} s after the first was switched on",
        start.elapsed().as_secs_f32()
    ));
    story
        .check("each serves its own class's overlay", async {
            served(world, "1.0.0")
        })
        .await?;
    story
        .check("agents and shims in memory (PSS)", async { memory(world) })
        .await?;

    progress.chapter("A push rolls through");
    apps::set_hello_version(world, "1.0.0", "1.1.0")?;
    let pushed = world.push("hello 1.1.0")?.context("something to push")?;
    progress.step(&format!("pushed {}", &pushed[..12]));
    story
        .check("a push runs on all four", async { all("1.1.0").await.map(took) })
        .await?;
    story
        .check("and is served", async { served(world, "1.1.0") })
        .await?;

    progress.chapter("A bad revision");
    let stray = (
        "command: [\"/demo-app\", \"hello\"]",
        "command: [\"/demo-app\", \"helo\"]",
    );
    apps::edit(world, "apps/base/hello/deployment.yaml", stray.0, stray.1)?;
    world.push("A typo that crashes")?;
    story
        .check("is rolled back, with the reason shown", async {
            rolled_back(&api).await
        })
        .await?;
    story
        .check("the last good version is served all the while", async {
            served(world, "1.1.0")
        })
        .await?;
    apps::edit(world, "apps/base/hello/deployment.yaml", stray.1, stray.0)?;
    apps::edit(world, "apps/base/hello/greeting.txt", "Good day", "Good evening")?;
    world.push("Mend the typo, greet for the evening")?;
    story
        .check("the next revision is accepted", async {
            all("1.1.0").await.map(took)
        })
        .await?;

    alone(world, &api, progress, &mut story).await
}

/// The link is cut, the agent killed, a container crashes; then everything comes back and nothing is lost.
async fn alone(world: &mut World, api: &ApiClient, progress: &Progress, story: &mut Story<'_>) -> Result<()> {
    progress.chapter("One device on its own");
    for (name, _) in fleet() {
        telemetry::write_lines(world, &name, "with-link")?;
    }
    let cut_at = Timestamp::now();
    world.cut(LONELY)?;
    let dark_at = Timestamp::now();
    progress.step(&format!("link of {LONELY} cut"));
    story
        .check("the hub says Unknown, with its age", async { unknown(api).await })
        .await?;
    world.kill_agent(LONELY)?;
    progress.step("its agent killed with SIGKILL");
    let served_by = |what: &'static str| hello_of(world, LONELY, what);
    story
        .check("its containers live on", async { served_by("version 1.1.0") })
        .await?;
    telemetry::write_lines(world, LONELY, "without-agent")?;
    let pids = containers(world, LONELY);
    // The pod answers and then exits; which one of the two it is does not matter.
    http::get(LONELY, address_of(world, LONELY)?, HELLO_PORT, "/crash")?;
    progress.step("a container crashed, with nobody but its shim to see it");
    story
        .check("it is restarted while the agent is dead", async {
            restarted(world, &pids).await
        })
        .await?;
    world.start_agent(LONELY)?;
    progress.step("agent started again, still without a link");
    story
        .check("the agent takes its pods over, offline", async {
            offline_ready(world).await
        })
        .await?;
    telemetry::write_lines(world, LONELY, "without-link")?;
    story
        .check("it measures on, and keeps it", async {
            telemetry::measured_alone(world).await
        })
        .await?;
    apps::set_hello_version(world, "1.1.0", "1.0.0")?;
    world.push("Meanwhile: back to 1.0.0")?;
    progress.step("a push that it cannot see");

    progress.chapter("The link returns");
    let restored_at = Timestamp::now();
    world.restore(LONELY)?;
    story
        .check("it catches up with the fleet", async {
            fleet_runs(api, "1.0.0").await.map(took)
        })
        .await?;
    story
        .check("the hub has what happened meanwhile, in order", async {
            told_later(api, cut_at, restored_at).await
        })
        .await?;
    story
        .check("nothing is lost: spool and hub agree", async {
            proven(world).await
        })
        .await?;
    story
        .check("metrics and log lines of all four are there, counted", async {
            telemetry::all_told(world, dark_at, restored_at).await
        })
        .await?;
    staged(world, api, progress, story).await?;
    story
        .check("the audit trail names who did what", async { audited(api).await })
        .await
}

/// A revision goes over the fleet stage by stage, past a device that is away.
async fn staged(
    world: &mut World,
    api: &ApiClient,
    progress: &Progress,
    story: &mut Story<'_>,
) -> Result<()> {
    progress.chapter("A roll-out in stages");
    stages::set_policy(api).await?;
    progress.step("first one class, then everybody; who is away is not waited for");
    world.cut(LONELY)?;
    progress.step(&format!("link of {LONELY} cut"));
    story
        .check("a device that is away is known to be", async {
            unknown(api).await
        })
        .await?;
    apps::set_hello_version(world, "1.0.0", "1.1.0")?;
    let pushed = world
        .push("In stages: hello 1.1.0")?
        .context("something to push")?;
    progress.step(&format!("pushed {}", &pushed[..12]));
    story
        .check("the first stage proves it before anybody else moves", async {
            stages::first_moves(api, &pushed).await
        })
        .await?;
    story
        .check("the roll-out ends without the device that is away", async {
            stages::done(api, &pushed).await
        })
        .await?;
    world.restore(LONELY)?;
    story
        .check("which follows when it is back", async {
            fleet_runs(api, "1.1.0").await.map(took)
        })
        .await?;
    stages::remove_policy(api).await
}

/// Collects the checks.
struct Story<'a> {
    progress: &'a Progress,
    checks: &'a mut Vec<Check>,
}

impl Story<'_> {
    async fn check<T: Into<Seen>>(
        &mut self,
        what: &'static str,
        work: impl Future<Output = Result<T>>,
    ) -> Result<()> {
        match work.await {
            Ok(seen) => {
                let Seen(seen) = seen.into();
                self.progress.step(&format!(
                    "ok: {what}{}{seen}",
                    if seen.is_empty() { "" } else { ": " }
                ));
                self.checks.push(Check {
                    what,
                    outcome: Ok(seen),
                });
                Ok(())
            }
            Err(err) => {
                self.checks.push(Check {
                    what,
                    outcome: Err(format!("{err:#}")),
                });
                Err(err.context(what))
            }
        }
    }
}

/// What a check saw, for the table.
struct Seen(String);

impl From<()> for Seen {
    fn from((): ()) -> Self {
        Self(String::new())
    }
}
impl From<String> for Seen {
    fn from(text: String) -> Self {
        Self(text)
    }
}

fn took(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f32())
}

/// All devices are healthy on one revision, whose `hello` is of this version.
async fn fleet_runs(api: &ApiClient, version: &str) -> Result<Duration> {
    let image = format!("demo/hello:{version}");
    let (_, time) = until("the fleet", PATIENT, || async {
        let devices = api.devices().await?;
        ensure!(
            devices.len() == fleet().len(),
            "{} devices are enrolled",
            devices.len()
        );
        let mut revisions = BTreeSet::new();
        for device in &devices {
            settled(device)?;
            let detail = api.device(&device.name).await?;
            let status = detail.status.context("no status yet")?;
            let images = status.workloads.iter().flat_map(|workload| &workload.images);
            ensure!(
                images.clone().any(|i| i.ends_with(&image)),
                "{} does not run {image} yet",
                device.name
            );
            let fetched = status
                .source
                .revision
                .as_ref()
                .map(|revision| revision.commit.clone());
            let running = status
                .generation
                .revision
                .as_ref()
                .map(|revision| revision.commit.clone());
            ensure!(
                fetched == running,
                "{} has fetched more than it runs",
                device.name
            );
            revisions.insert(running);
        }
        ensure!(revisions.len() == 1, "{} revisions run", revisions.len());
        Ok(())
    })
    .await?;
    Ok(time)
}

fn settled(device: &DeviceSummary) -> Result<()> {
    ensure!(
        device.link == Link::Connected,
        "{} is {:?}",
        device.name,
        device.link
    );
    ensure!(
        device.phase == Some(Phase::Ready),
        "{} is {:?}: {}",
        device.name,
        device.phase,
        device.message
    );
    Ok(())
}

fn address_of(world: &World, name: &str) -> Result<Ipv4Addr> {
    Ok(world.device(name)?.address())
}

/// What `hello` of a device answers at its NodePort, from beside the device's own network.
fn hello_of(world: &World, name: &str, part: &str) -> Result<String> {
    let body = http::get(name, address_of(world, name)?, HELLO_PORT, "/")?;
    ensure!(body.contains(part), "{name} answers {body:?}, without {part:?}");
    Ok(body.lines().next().unwrap_or_default().to_owned())
}

fn served(world: &World, version: &str) -> Result<String> {
    let mut words = Vec::new();
    for device in world.devices() {
        let name = device.name.as_str();
        hello_of(world, name, &format!("version {version}"))?;
        words.push(hello_of(world, name, &format!("device {name}"))?);
    }
    Ok(format!("{} answers, such as {:?}", words.len(), words[0]))
}

/// Proportional memory of agents and shims, by device; containers are not ours.
fn memory(world: &World) -> Result<String> {
    let mut texts = Vec::new();
    for device in world.devices() {
        let agent = device
            .agent
            .and_then(process::Process::pss)
            .context("the agent's memory")?;
        let (shims, count) = shims(device.name.as_str());
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        texts.push(format!(
            "{} {:.1} + {count} shims {:.1} MiB",
            device.name,
            mib(agent),
            mib(shims)
        ));
    }
    Ok(texts.join("; "))
}

fn shims(device: &str) -> (u64, usize) {
    let ours: Vec<u64> = cgroups::processes(device)
        .into_iter()
        .filter(|pid| process::is_shim(*pid))
        .filter_map(process::pss)
        .collect();
    (ours.iter().sum(), ours.len())
}

async fn rolled_back(api: &ApiClient) -> Result<String> {
    let (reason, time) = until("the roll-back", PATIENT, || async {
        let devices = api.devices().await?;
        for device in &devices {
            ensure!(
                device.phase == Some(Phase::RolledBack),
                "{} is {:?}",
                device.name,
                device.phase
            );
        }
        let failed = devices[0]
            .generation
            .failed
            .clone()
            .context("no reason is told")?;
        Ok(failed.1)
    })
    .await?;
    Ok(format!(
        "{}: {}",
        took(time),
        reason.lines().next().unwrap_or_default()
    ))
}

async fn unknown(api: &ApiClient) -> Result<String> {
    let (age, _) = until("the cut link", PATIENT, || async {
        let devices = api.devices().await?;
        let device = devices
            .iter()
            .find(|d| d.name.as_str() == LONELY)
            .context("it is listed")?;
        ensure!(
            device.health == "Unknown",
            "{} is {} over {:?}",
            device.name,
            device.health,
            device.link
        );
        Ok(device.status_age_seconds.unwrap_or_default())
    })
    .await?;
    Ok(format!("last status {age} s ago"))
}

/// Processes of a device's containers: neither agent nor shim.
fn containers(world: &World, name: &str) -> BTreeSet<i32> {
    let agent = world
        .device(name)
        .ok()
        .and_then(|device| device.agent)
        .map(|agent| agent.pid);
    cgroups::processes(name)
        .into_iter()
        .filter(|pid| Some(*pid) != agent && !process::is_shim(*pid))
        .collect()
}

async fn restarted(world: &World, before: &BTreeSet<i32>) -> Result<String> {
    let (_, time) = until("the restart", PATIENT, || async {
        let now = containers(world, LONELY);
        ensure!(now.difference(before).next().is_some(), "no new process yet");
        hello_of(world, LONELY, "version 1.1.0").map(|_| ())
    })
    .await?;
    Ok(took(time))
}

async fn offline_ready(world: &World) -> Result<String> {
    let device = world.device(LONELY)?.clone();
    let (restarts, time) = until("the agent", PATIENT, || async {
        let status = local::status(world, &device)?;
        ensure!(status.phase == Phase::Ready, "{:?}", status.phase);
        ensure!(
            status.workloads.iter().all(|w| w.state == WorkloadState::Current),
            "not all workloads are current"
        );
        Ok(status
            .workloads
            .iter()
            .flat_map(|w| &w.pods)
            .map(|pod| pod.restarts)
            .sum::<u32>())
    })
    .await?;
    Ok(format!("ready after {}, {restarts} restart seen", took(time)))
}

/// Events of the time without link: they are there, each once, in the order of their time.
async fn told_later(api: &ApiClient, cut_at: Timestamp, restored_at: Timestamp) -> Result<String> {
    let name = LONELY.parse()?;
    let (count, _) = until("the events", PATIENT, || async {
        let mut rows = api.events(Some(&name), 500).await?;
        rows.reverse();
        let late: Vec<_> = rows
            .iter()
            .filter(|row| row.event.time > cut_at && row.event.time < restored_at)
            .collect();
        let has = |reasons: &[&str]| {
            late.iter()
                .any(|row| reasons.contains(&row.event.reason.as_str()))
        };
        ensure!(
            late.iter().all(|row| row.received_at >= restored_at),
            "something came through a cut link"
        );
        ensure!(has(&["Exited", "BackOff", "Died"]), "the crash is not told yet");
        ensure!(has(&["Started"]), "the restart is not told yet");
        let mut seen = BTreeSet::new();
        for row in &rows {
            let event = &row.event;
            let key = (
                event.time,
                event.about.clone(),
                event.reason.clone(),
                event.message.clone(),
            );
            ensure!(seen.insert(key), "told twice: {} {}", event.about, event.message);
        }
        Ok(late.len())
    })
    .await?;
    Ok(format!("{count} events arrived late, none twice"))
}

/// The device's own account of its spool: everything ever appended was stored by the hub, which said so.
async fn proven(world: &World) -> Result<String> {
    let device = world.device(LONELY)?.clone();
    let (text, _) = until("the account", PATIENT, || async {
        let streams = local::spool(world, &device)?;
        for stream in &streams {
            ensure!(
                stream.lost == 0 && stream.dropped == 0 && stream.set_aside == 0,
                "{stream:?}"
            );
            ensure!(
                stream.resident == 0,
                "{} records of {} wait",
                stream.resident,
                stream.stream
            );
            ensure!(stream.appended == stream.acked, "{stream:?}");
        }
        let appended: u64 = streams.iter().map(|stream| stream.appended).sum();
        Ok(format!(
            "{appended} records appended, as many acknowledged, 0 lost, 0 dropped"
        ))
    })
    .await?;
    Ok(text)
}

async fn audited(api: &ApiClient) -> Result<String> {
    let rows = api.audit(200).await?;
    ensure!(
        rows.iter().any(|row| row.action.contains("enrol")),
        "no enrolment in the audit trail"
    );
    Ok(format!("{} entries", rows.len()))
}

/// The ends of all logs, for a failure.
pub(crate) fn logs(world: &World) -> String {
    let mut text = format!("--- hub.log\n{}\n", tail(&world.dir().join("hub.log"), 15));
    for device in world.devices() {
        let path = world
            .dir()
            .join("devices")
            .join(device.name.as_str())
            .join("agent.log");
        text.push_str(&format!("--- {}/agent.log\n{}\n", device.name, tail(&path, 15)));
    }
    text
}
