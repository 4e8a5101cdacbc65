//! An engine in memory: pods that run nothing, for tests of everything above an engine.
//!
//! A container whose command is `sh -c SCRIPT` acts out the few words of [`script`]; any other runs until it
//! is stopped. Tests steer the rest: images that cannot be pulled, readiness, crashes.

mod script;

use crate::{Engine, EngineError, EngineEvent, LogFile, LogQuery, PullProgress, Pulls, logs};
use bytes::Bytes;
use kit::Clock;
use model::{
    Action, ContainerObserved, ContainerRun, ContainerState, Event, ImageRef, ObjectKey, Observed, PodGroup,
    PodId, PodObserved, PodPhase, PodRun, RestartPolicy, Severity, Step,
};
use script::Word;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// See the [module](self).
#[derive(Debug, Clone)]
pub struct FakeEngine {
    clock: Arc<dyn Clock>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    world: Mutex<World>,
    /// Counts what moved.
    version: watch::Sender<u64>,
    pulls: watch::Sender<Pulls>,
    /// The version that was last looked at.
    seen: Mutex<u64>,
}

#[derive(Debug, Default)]
struct World {
    pods: BTreeMap<PodId, Pod>,
    journals: BTreeMap<String, Journal>,
    services: Option<model::Digest>,
    bad_images: BTreeMap<ImageRef, String>,
    held_unready: BTreeSet<PodId>,
    taken: Vec<Step>,
    kept: Vec<BTreeSet<ImageRef>>,
    held_pulls: BTreeMap<ImageRef, PullProgress>,
    made: u64,
    first_wait: Duration,
}

#[derive(Debug)]
struct Pod {
    seen: PodObserved,
    run: PodRun,
    source: String,
    logs: BTreeMap<String, Vec<Line>>,
}

#[derive(Debug)]
struct Line {
    time: jiff::Timestamp,
    run: u32,
    text: String,
}

#[derive(Debug, Default)]
struct Journal {
    events: Vec<Event>,
    closed: bool,
}

impl FakeEngine {
    /// An engine without pods; a crashed container is started again after `first_wait`, doubling.
    pub fn new(clock: Arc<dyn Clock>, first_wait: Duration) -> Self {
        let world = World {
            first_wait,
            ..World::default()
        };
        Self {
            clock,
            shared: Arc::new(Shared {
                world: Mutex::new(world),
                version: watch::Sender::new(0),
                pulls: watch::Sender::default(),
                seen: Mutex::new(0),
            }),
        }
    }

    /// From now on pulls of `image` fail for this reason.
    pub fn fail_pulls(&self, image: ImageRef, why: &str) {
        self.world().bad_images.insert(image, why.to_owned());
    }

    /// From now on pulls of `image` succeed.
    pub fn mend_pulls(&self, image: &ImageRef) {
        self.world().bad_images.remove(image);
    }

    /// From now on pulls of `image` stop here, until [`FakeEngine::release_pulls`].
    pub fn hold_pulls(&self, image: ImageRef, at: PullProgress) {
        self.world().held_pulls.insert(image, at);
    }

    /// Held pulls of `image` go on.
    pub fn release_pulls(&self, image: &ImageRef) {
        self.world().held_pulls.remove(image);
        self.moved();
    }

    /// What [`Engine::keep`] was told, in order.
    pub fn kept(&self) -> Vec<BTreeSet<ImageRef>> {
        self.world().kept.clone()
    }

    async fn pull(&self, image: &ImageRef) -> Result<(), EngineError> {
        let mut version = self.shared.version.subscribe();
        loop {
            let held = self.world().held_pulls.get(image).copied();
            let Some(at) = held else { break };
            self.shared.pulls.send_modify(|pulls| {
                pulls.insert(image.clone(), at);
            });
            // The sender lives in `self`.
            let _ = version.changed().await;
        }
        self.shared
            .pulls
            .send_if_modified(|pulls| pulls.remove(image).is_some());
        pullable(&self.world(), image)
    }

    /// Holds a pod, present or to come, unready, or lets it be ready again.
    pub fn hold_unready(&self, pod: &PodId, hold: bool) {
        let mut world = self.world();
        if hold {
            world.held_unready.insert(pod.clone());
        } else {
            world.held_unready.remove(pod);
        }
        if let Some(pod) = world.pods.get_mut(pod) {
            for container in &mut pod.seen.containers {
                container.ready = !hold && matches!(container.state, ContainerState::Running { .. });
            }
        }
        drop(world);
        self.moved();
    }

    /// Ends a running container as if its process had exited.
    pub fn crash(&self, pod: &PodId, container: &str, code: i32) {
        self.ended(pod, container, code);
    }

    /// The steps taken so far, in order.
    pub fn taken(&self) -> Vec<Step> {
        self.world().taken.clone()
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.shared.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn moved(&self) {
        self.shared.version.send_modify(|version| *version += 1);
    }

    fn tell(&self, world: &mut World, source: &str, pod: &PodId, severity: Severity, what: (&str, String)) {
        let event = Event {
            time: self.clock.now(),
            severity,
            reason: what.0.to_owned(),
            about: format!("Pod/{pod}"),
            message: what.1,
            generation: None,
        };
        world
            .journals
            .entry(source.to_owned())
            .or_default()
            .events
            .push(event);
    }

    fn start_pod(&self, run: &PodRun) -> Result<(), EngineError> {
        let mut world = self.world();
        let over = |pod: &Pod| matches!(pod.seen.phase, PodPhase::Succeeded | PodPhase::Failed);
        match world.pods.get(&run.id) {
            Some(pod) if !over(pod) && pod.seen.template == run.template => return Ok(()),
            Some(pod) if !over(pod) => {
                return Err(EngineError::Refused {
                    pod: run.id.clone(),
                    container: None,
                    what: "it runs already, made from another template".to_owned(),
                    remedy: "stop it first".to_owned(),
                });
            }
            _ => {}
        }
        for container in run.init_containers.iter().chain(&run.containers) {
            pullable(&world, &container.image)?;
        }
        if let Some(old) = world.pods.remove(&run.id) {
            world.journals.entry(old.source).or_default().closed = true;
        }
        world.made += 1;
        let source = format!("{}-{}-{}", run.id.namespace, run.id.name, world.made);
        let [.., high, low] = world.made.to_be_bytes();
        let pod = Pod {
            seen: PodObserved {
                id: run.id.clone(),
                owner: run.owner.clone(),
                template: run.template,
                labels: run.labels.clone(),
                files: model::files_digest(&run.volumes),
                phase: PodPhase::Running,
                ip: Some(IpAddr::V4(Ipv4Addr::new(10, 88, high, low))),
                created_at: self.clock.now(),
                containers: run.containers.iter().map(waiting).collect(),
                terminating: false,
                trouble: None,
            },
            run: run.clone(),
            source: source.clone(),
            logs: BTreeMap::new(),
        };
        world.pods.insert(run.id.clone(), pod);
        drop(world);
        for container in &run.containers {
            self.start_container(&run.id, &source, container.name.clone());
        }
        Ok(())
    }

    fn start_container(&self, id: &PodId, source: &str, name: String) {
        let now = self.clock.now();
        let mut world = self.world();
        let unready = world.held_unready.contains(id);
        let Some(pod) = world
            .pods
            .get_mut(id)
            .filter(|pod| pod.source == source && !pod.seen.terminating)
        else {
            return;
        };
        let words = pod
            .run
            .containers
            .iter()
            .find(|c| c.name == name)
            .map(script::of)
            .unwrap_or_default();
        for container in pod.seen.containers.iter_mut().filter(|c| c.name == name) {
            container.state = ContainerState::Running { since: now };
            container.started = true;
            container.ready = !unready;
        }
        self.tell(
            &mut world,
            source,
            id,
            Severity::Normal,
            ("Started", format!("Started container {name}")),
        );
        drop(world);
        self.moved();
        if words.is_empty() {
            return;
        }
        let (engine, id, source) = (self.clone(), id.clone(), source.to_owned());
        tokio::spawn(async move {
            for word in words {
                match word {
                    Word::Echo(text) => engine.write(&id, &source, &name, text),
                    Word::Sleep(time) => tokio::time::sleep(time).await,
                    Word::Exit(code) => return engine.ended_of(&id, &source, &name, code),
                }
            }
            engine.ended_of(&id, &source, &name, 0);
        });
    }

    fn write(&self, id: &PodId, source: &str, name: &str, text: String) {
        let time = self.clock.now();
        let mut world = self.world();
        let Some(pod) = world.pods.get_mut(id).filter(|pod| pod.source == source) else {
            return;
        };
        let run = pod
            .seen
            .containers
            .iter()
            .find(|c| c.name == name)
            .map_or(0, |c| c.restarts);
        pod.logs
            .entry(name.to_owned())
            .or_default()
            .push(Line { time, run, text });
        drop(world);
        self.moved();
    }

    fn ended(&self, id: &PodId, name: &str, code: i32) {
        let source = self.world().pods.get(id).map(|pod| pod.source.clone());
        if let Some(source) = source {
            self.ended_of(id, &source, name, code);
        }
    }

    fn ended_of(&self, id: &PodId, source: &str, name: &str, code: i32) {
        let at = self.clock.now();
        let mut world = self.world();
        let first_wait = world.first_wait;
        let Some(pod) = world.pods.get_mut(id).filter(|pod| pod.source == source) else {
            return;
        };
        let again = match pod.run.restart {
            RestartPolicy::Always => true,
            RestartPolicy::OnFailure => code != 0,
            RestartPolicy::Never => false,
        };
        let Some(container) = pod.seen.containers.iter_mut().find(|c| c.name == name) else {
            return;
        };
        if !matches!(container.state, ContainerState::Running { .. }) {
            return;
        }
        let reason = if code == 0 { "Completed" } else { "Error" };
        container.ready = false;
        container.last_exit = Some((code, reason.to_owned()));
        let wait = again.then(|| {
            let wait = first_wait.saturating_mul(1 << container.restarts.min(5));
            container.restarts += 1;
            container.state = ContainerState::Waiting {
                reason: "CrashLoopBackOff".to_owned(),
            };
            wait
        });
        if !again {
            container.state = ContainerState::Exited {
                code,
                reason: reason.to_owned(),
                at,
            };
        }
        pod.seen.phase = phase(&pod.seen.containers);
        let what = ("Exited", format!("container {name} ended with code {code}"));
        let severity = if code == 0 {
            Severity::Normal
        } else {
            Severity::Warning
        };
        self.tell(&mut world, source, id, severity, what);
        drop(world);
        self.moved();
        if let Some(wait) = wait {
            let (engine, id, source, name) = (self.clone(), id.clone(), source.to_owned(), name.to_owned());
            tokio::spawn(async move {
                tokio::time::sleep(wait).await;
                engine.start_container(&id, &source, name);
            });
        }
    }

    fn stop_pod(&self, id: &PodId) {
        let mut world = self.world();
        let Some(pod) = world.pods.remove(id) else {
            return;
        };
        self.tell(
            &mut world,
            &pod.source,
            id,
            Severity::Normal,
            ("Killing", "pod stopped".to_owned()),
        );
        world.journals.entry(pod.source).or_default().closed = true;
    }
}

impl Engine for FakeEngine {
    async fn observe(&self) -> Result<Observed, EngineError> {
        let version = *self.shared.version.borrow();
        *self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner) = version;
        let world = self.world();
        let pods = world.pods.values().map(|pod| pod.seen.clone()).collect();
        Ok(Observed {
            pods,
            services: world.services,
        })
    }

    async fn apply(&self, step: &Step) -> Result<(), EngineError> {
        self.world().taken.push(step.clone());
        match &step.action {
            Action::Pull { image, .. } => self.pull(image).await?,
            Action::StartPod { pod } => self.start_pod(pod)?,
            Action::StopPod { pod, .. } => self.stop_pod(pod),
            Action::RefreshFiles { pod, volumes } => {
                let mut world = self.world();
                let held = world
                    .pods
                    .get_mut(pod)
                    .ok_or_else(|| EngineError::NotFound(pod.to_string()))?;
                held.seen.files = model::files_digest(volumes);
            }
            Action::Publish { services } => {
                self.world().services = Some(model::services_digest(services));
            }
        }
        self.moved();
        Ok(())
    }

    async fn changed(&self) {
        let seen = *self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // The sender lives in `self`, so that waiting cannot fail.
        let _ = self
            .shared
            .version
            .subscribe()
            .wait_for(|version| *version > seen)
            .await;
    }

    async fn logs(&self, query: &LogQuery) -> Result<mpsc::Receiver<Bytes>, EngineError> {
        let (sender, receiver) = mpsc::channel(16);
        let name = {
            let world = self.world();
            let pod = world
                .pods
                .get(&query.pod)
                .ok_or_else(|| EngineError::NotFound(query.pod.to_string()))?;
            let name = query
                .container
                .clone()
                .unwrap_or_else(|| pod.run.containers[0].name.clone());
            if !pod.run.containers.iter().any(|c| c.name == name) {
                return Err(EngineError::NotFound(format!(
                    "container {name} of pod {}",
                    query.pod
                )));
            }
            name
        };
        let (engine, query) = (self.clone(), query.clone());
        tokio::spawn(async move {
            let mut version = engine.shared.version.subscribe();
            let mut sent = None;
            loop {
                version.borrow_and_update();
                let Some(lines) = engine.lines(&query, &name, &mut sent) else {
                    return;
                };
                for line in lines {
                    if sender.send(line).await.is_err() {
                        return;
                    }
                }
                if !query.follow || version.changed().await.is_err() {
                    return;
                }
            }
        });
        Ok(receiver)
    }

    async fn log_files(&self) -> Result<Vec<LogFile>, EngineError> {
        // Its logs are in memory.
        Ok(Vec::new())
    }

    fn groups(&self) -> Vec<PodGroup> {
        Vec::new()
    }

    fn pod_at(&self, address: IpAddr) -> Option<(PodId, ObjectKey)> {
        let world = self.world();
        let pod = world.pods.values().find(|pod| pod.seen.ip == Some(address))?;
        Some((pod.seen.id.clone(), pod.seen.owner.clone()))
    }

    async fn events(&self, after: &BTreeMap<String, u64>) -> Result<Vec<EngineEvent>, EngineError> {
        let mut world = self.world();
        let read = |source: &str| after.get(source).copied().unwrap_or(0);
        world
            .journals
            .retain(|source, journal| !journal.closed || read(source) < journal.events.len() as u64);
        let mut events = Vec::new();
        for (source, journal) in &world.journals {
            events.extend(
                (1..)
                    .zip(&journal.events)
                    .filter(|(position, _)| *position > read(source))
                    .map(|(position, event)| EngineEvent {
                        source: source.clone(),
                        position,
                        event: event.clone(),
                    }),
            );
        }
        Ok(events)
    }

    async fn sources(&self) -> Result<BTreeSet<String>, EngineError> {
        let world = self.world();
        let live = world.pods.values().map(|pod| pod.source.clone());
        Ok(live.chain(world.journals.keys().cloned()).collect())
    }

    async fn keep(&self, images: &BTreeSet<ImageRef>) -> Result<(), EngineError> {
        self.world().kept.push(images.clone());
        Ok(())
    }

    fn pulls(&self) -> watch::Receiver<Pulls> {
        self.shared.pulls.subscribe()
    }
}

impl FakeEngine {
    /// The lines not sent yet; `sent` is how many of the container's lines were looked at before.
    fn lines(&self, query: &LogQuery, name: &str, sent: &mut Option<usize>) -> Option<Vec<Bytes>> {
        let world = self.world();
        let pod = world.pods.get(&query.pod)?;
        let restarts = pod
            .seen
            .containers
            .iter()
            .find(|c| c.name == name)
            .map_or(0, |c| c.restarts);
        let all = pod.logs.get(name).map_or(&[][..], Vec::as_slice);
        let fresh: Vec<&Line> = all[sent.unwrap_or(0).min(all.len())..]
            .iter()
            .filter(|line| !query.previous || line.run + 1 == restarts)
            .filter(|line| logs::wanted(query, &line.time.to_string(), line.text.as_bytes()))
            .collect();
        let skip = match (sent.is_some(), query.tail) {
            (false, Some(tail)) => fresh.len().saturating_sub(tail),
            _ => 0,
        };
        *sent = Some(all.len());
        let text = |line: &&Line| {
            let about = logs::About {
                pod: query.pod.clone(),
                container: name.to_owned(),
                run: line.run,
            };
            let (time, text) = (line.time.to_string(), line.text.as_bytes());
            logs::write_line(query, &about, model::cri::Stream::Out, &time, text)
        };
        Some(fresh[skip..].iter().map(text).collect())
    }
}

fn pullable(world: &World, image: &ImageRef) -> Result<(), EngineError> {
    match world.bad_images.get(image) {
        Some(why) => Err(EngineError::Pull {
            image: Box::new(image.clone()),
            why: format!("image {image}: {why}"),
        }),
        None => Ok(()),
    }
}

fn waiting(container: &ContainerRun) -> ContainerObserved {
    ContainerObserved {
        name: container.name.clone(),
        state: ContainerState::Waiting {
            reason: "ContainerCreating".to_owned(),
        },
        ready: false,
        started: false,
        restarts: 0,
        last_exit: None,
        image: container.image.digest,
    }
}

fn phase(containers: &[ContainerObserved]) -> PodPhase {
    let mut failed = false;
    for container in containers {
        match container.state {
            ContainerState::Exited { code, .. } => failed |= code != 0,
            _ => return PodPhase::Running,
        }
    }
    if failed {
        PodPhase::Failed
    } else {
        PodPhase::Succeeded
    }
}
