//! A generation from YAML, and an engine made of plain data.

use jiff::Timestamp;
use model::{
    Action, ContainerObserved, ContainerState, Desired, Object, Observed, PodObserved, PodPhase, PodRun,
    Revision, Step,
};
use plan::{Limits, Refusal, Wanted, expand};

pub const LIMITS: Limits = Limits {
    cpu_milli: 4000,
    memory: 4 << 30,
    seccomp: false,
};

pub fn desired(yaml: &str) -> Desired {
    let objects = yaml
        .split("\n---\n")
        .map(|doc| Object::new(serde_saphyr::from_str(doc).expect("the test's YAML")).expect("an object"))
        .collect();
    let revision = Revision {
        reference: "main".to_owned(),
        commit: "0".repeat(40),
        summary: String::new(),
        author: String::new(),
        committed_at: Timestamp::UNIX_EPOCH,
    };
    Desired {
        revision,
        path: "clusters/test".to_owned(),
        objects,
        kustomizations: Vec::new(),
        origins: Vec::new(),
        warnings: Vec::new(),
    }
}

pub fn wanted(yaml: &str) -> Wanted {
    match expand(&desired(yaml), &LIMITS) {
        Ok(wanted) => wanted,
        Err(refusals) => panic!("{}", told(&refusals)),
    }
}

pub fn told(refusals: &[Refusal]) -> String {
    refusals.iter().map(|r| format!("{r}\n")).collect()
}

/// Does what steps say, and lets pods become ready one at a time.
#[derive(Debug, Default)]
pub struct Machine {
    pub seen: Observed,
}

impl Machine {
    pub fn apply(&mut self, step: &Step) {
        match &step.action {
            Action::StopPod { pod, .. } => self.pod(|p| &p.id == pod).terminating = true,
            Action::StartPod { pod } => {
                assert!(
                    !self.seen.pods.iter().any(|p| p.id == pod.id),
                    "{} is there already",
                    pod.id
                );
                self.seen.pods.push(observed(pod));
            }
            Action::RefreshFiles { pod, volumes } => {
                self.pod(|p| &p.id == pod).files = model::files_digest(volumes)
            }
            Action::Publish { services } => self.seen.services = Some(model::services_digest(services)),
            Action::Pull { .. } => {}
        }
    }

    pub fn pod(&mut self, which: impl Fn(&PodObserved) -> bool) -> &mut PodObserved {
        self.seen.pods.iter_mut().find(|p| which(p)).expect("such a pod")
    }

    pub fn ready(&mut self, index: usize) {
        if let Some(pod) = self.seen.pods.get_mut(index) {
            pod.containers[0].ready = true;
        }
    }

    pub fn bury(&mut self) {
        self.seen.pods.retain(|p| !p.terminating);
    }

    pub fn names(&self) -> Vec<&str> {
        self.seen.pods.iter().map(|p| p.id.name.as_str()).collect()
    }
}

fn observed(pod: &PodRun) -> PodObserved {
    PodObserved {
        id: pod.id.clone(),
        owner: pod.owner.clone(),
        template: pod.template,
        labels: pod.labels.clone(),
        files: model::files_digest(&pod.volumes),
        phase: PodPhase::Running,
        ip: None,
        created_at: Timestamp::UNIX_EPOCH,
        containers: vec![ContainerObserved {
            name: pod.containers[0].name.clone(),
            state: ContainerState::Running {
                since: Timestamp::UNIX_EPOCH,
            },
            ready: false,
            started: true,
            restarts: 0,
            last_exit: None,
            image: None,
        }],
        terminating: false,
        trouble: None,
    }
}
