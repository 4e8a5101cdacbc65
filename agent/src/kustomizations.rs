//! `Kustomization` objects in a status: Flux's conditions, each with the time of its last change.

use jiff::Timestamp;
use model::{Condition, GenerationStatus, KustomizationStatus, SourceStatus};
use render::flux::{Health, Standing, ready_word};

/// One of the generation that runs, and how it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// How it stands.
    pub health: Health,
    /// How many objects are in its inventory.
    pub objects: u32,
    /// The artifact that it was read from, where that is another source's.
    pub revision: Option<String>,
}

/// The statuses; times are kept from those `held` while a condition's status stays.
pub fn statuses(
    held: &[KustomizationStatus],
    seen: &[Seen],
    generation: &GenerationStatus,
    source: &SourceStatus,
    now: Timestamp,
) -> Vec<KustomizationStatus> {
    let revision = generation.revision.as_ref().map(ToString::to_string);
    seen.iter()
        .map(|seen| {
            let health = &seen.health;
            let before = held
                .iter()
                .find(|held| held.namespace == health.namespace && held.name == health.name);
            let since = |kind: &str, status: &str| {
                before
                    .into_iter()
                    .flat_map(|before| &before.conditions)
                    .find(|condition| condition.kind == kind && condition.status == status)
                    .map_or(now, |condition| condition.last_transition_time)
            };
            let conditions = conditions(health, source)
                .into_iter()
                .map(|(kind, status, reason, message)| Condition {
                    last_transition_time: since(kind, status),
                    kind: kind.to_owned(),
                    status: status.to_owned(),
                    reason,
                    message,
                })
                .collect();
            let applied = matches!(
                health.standing,
                Standing::Ready | Standing::Progressing | Standing::Failed
            );
            KustomizationStatus {
                namespace: health.namespace.clone(),
                name: health.name.clone(),
                last_applied_revision: seen
                    .revision
                    .clone()
                    .or_else(|| revision.clone())
                    .filter(|_| applied),
                objects: seen.objects,
                conditions,
            }
        })
        .collect()
}

type Told = (&'static str, &'static str, String, String);

/// Kind, status, reason and message of each condition; Flux removes those that do not hold.
fn conditions(health: &Health, source: &SourceStatus) -> Vec<Told> {
    let mut told = Vec::new();
    let named = format!("Kustomization/{}/{}", health.namespace, health.name);
    // A newer revision that does not render leaves the old one running.
    let broken = source.error.as_ref().filter(|error| error.contains(&named));
    match broken {
        Some(error) => {
            let of_source = error.contains(&format!("{named}: spec.sourceRef"));
            let reason = if of_source {
                "ArtifactFailed"
            } else {
                "BuildFailed"
            };
            told.push(("Ready", "False", reason.to_owned(), error.clone()));
        }
        None => told.push((
            "Ready",
            ready_word(health.standing),
            health.reason.clone(),
            health.message.clone(),
        )),
    }
    if health.checked {
        let (status, reason) = match health.standing {
            Standing::Ready => ("True", "Succeeded"),
            Standing::Failed => ("False", "HealthCheckFailed"),
            Standing::Progressing | Standing::Waiting | Standing::LeftOut => ("Unknown", "Progressing"),
        };
        told.push(("Healthy", status, reason.to_owned(), health.message.clone()));
    }
    if matches!(health.standing, Standing::Progressing | Standing::Waiting) {
        let message = health.message.clone();
        told.push(("Reconciling", "True", "Progressing".to_owned(), message));
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(standing: Standing, reason: &str) -> Seen {
        Seen {
            health: Health {
                namespace: "flux-system".to_owned(),
                name: "apps".to_owned(),
                standing,
                reason: reason.to_owned(),
                message: "told".to_owned(),
                checked: true,
            },
            objects: 3,
            revision: None,
        }
    }

    fn words(statuses: &[KustomizationStatus]) -> Vec<String> {
        statuses[0]
            .conditions
            .iter()
            .map(|c| format!("{}={} {}", c.kind, c.status, c.reason))
            .collect()
    }

    #[test]
    fn conditions_have_fluxs_words_and_keep_their_time() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let (generation, mut source) = (GenerationStatus::default(), SourceStatus::default());
        let on_the_way = [seen(Standing::Progressing, "Progressing")];
        let first = statuses(&[], &on_the_way, &generation, &source, at(1));
        assert_eq!(
            words(&first),
            [
                "Ready=Unknown Progressing",
                "Healthy=Unknown Progressing",
                "Reconciling=True Progressing"
            ]
        );
        let ready = [seen(Standing::Ready, "ReconciliationSucceeded")];
        let second = statuses(&first, &ready, &generation, &source, at(2));
        assert_eq!(
            words(&second),
            ["Ready=True ReconciliationSucceeded", "Healthy=True Succeeded"]
        );
        let third = statuses(&second, &ready, &generation, &source, at(3));
        assert_eq!(third[0].conditions[0].last_transition_time, at(2));
        source.error = Some("apps/k.yaml: Kustomization/flux-system/apps: spec.path: no folder".to_owned());
        let broken = statuses(&third, &ready, &generation, &source, at(4));
        assert_eq!(
            words(&broken),
            ["Ready=False BuildFailed", "Healthy=True Succeeded"]
        );
        let failed = [seen(Standing::Failed, "HealthCheckFailed")];
        let failed = statuses(&third, &failed, &generation, &SourceStatus::default(), at(5));
        assert_eq!(
            words(&failed),
            ["Ready=False HealthCheckFailed", "Healthy=False HealthCheckFailed"]
        );
    }
}
