//! `/rollouts`: which revision goes where, stage by stage, and who holds it up.

use super::layout::{self, Place};
use super::live::{Fragment, Look};
use super::login::Viewer;
use super::parts::{self, Tone};
use super::{Dashboard, PageError};
use crate::store::{HeldPolicy, Store};
use axum::extract::State;
use maud::{Markup, html};
use model::{Member, MemberState, Rollout, RolloutState, Unreachable};

/// Roll-outs that are shown.
const SHOWN: usize = 20;

/// `GET /rollouts`.
pub(super) async fn page(viewer: Viewer, State(dashboard): State<Dashboard>) -> Result<Markup, PageError> {
    let shown = look(&dashboard.store).await?;
    let content = html! {
        div .title { h1 { "Roll-outs" } p .muted { "A revision is admitted stage by stage; devices move by themselves, and one that is away follows when it is back." } }
        (shown.markup("policy"))
        (shown.markup("newest"))
        (shown.markup("past"))
    };
    let live = Some("view=rollouts");
    Ok(layout::page(
        &viewer,
        Place::Rollouts,
        "Roll-outs",
        live,
        &content,
    ))
}

/// Everything on the page that can change.
pub(super) async fn look(store: &Store) -> Result<Look, PageError> {
    let policy = store.rollout_policy().await?;
    let mut all = store.rollouts(SHOWN).await?.into_iter();
    let newest = all.next();
    let past: Vec<Rollout> = all.collect();
    let mut look = Look::default();
    look.add(Fragment::of(
        "policy",
        |id, hash, inner| html! { div id=(id) data-hash=(hash) { (inner) } },
        told_policy(policy.as_ref()),
    ));
    if let Some(rollout) = &newest {
        look.states.insert(
            format!("roll-out {}", rollout.id),
            rollout.state.word().to_lowercase(),
        );
    }
    look.add(Fragment::section(
        "newest",
        "The newest",
        html! {
            @match &newest {
                Some(rollout) => (whole(rollout)),
                None => p .empty { "None yet." },
            }
        },
    ));
    look.add(Fragment::section("past", "Before", table(&past)));
    Ok(look)
}

fn told_policy(held: Option<&HeldPolicy>) -> Markup {
    html! {
        @match held {
            None => p .notice { span { "No policy: devices follow their source by themselves. Set one with " (parts::code("leeward rollout policy --stages 1,25%")) "." } },
            Some(held) => p .notice {
                span {
                    "Stages " (held.policy.stages_text()) ", then everybody; each healthy for " (parts::length(held.policy.healthy_for_seconds))
                    ", within " (parts::length(held.policy.deadline_seconds)) "; " (held.policy.max_failures) " may fail; "
                    @match held.policy.unreachable {
                        Unreachable::Continue => "who cannot be reached is not waited for",
                        Unreachable::Halt => "who cannot be reached halts it",
                    }
                    ". Set by " (held.by) " " (parts::when(held.at)) "."
                }
            },
        }
    }
}

fn state(rollout: &Rollout) -> Markup {
    let tone = match &rollout.state {
        RolloutState::Running => Tone::Busy,
        RolloutState::Done => Tone::Good,
        RolloutState::Halted { .. } => Tone::Bad,
        RolloutState::Paused | RolloutState::Aborted | RolloutState::Superseded => Tone::Quiet,
    };
    parts::badge(tone, rollout.state.word())
}

/// Of how many stages; the last one is everybody.
fn stage(rollout: &Rollout) -> String {
    format!("{} of {}", rollout.stage + 1, rollout.policy.stages.len() + 1)
}

fn whole(rollout: &Rollout) -> Markup {
    html! {
        p { (state(rollout)) " " (parts::code(rollout.revision.short())) " " (rollout.revision.summary) ", stage " (stage(rollout)) ", begun by " (rollout.by) " " (parts::when(rollout.created_at)) }
        @if let RolloutState::Halted { why } = &rollout.state {
            p .notice.is-bad role="alert" { (parts::icon(Tone::Bad)) span { (why) ". Go on with " (parts::code(&format!("leeward rollout resume {}", rollout.id))) ", or end it with " (parts::code(&format!("leeward rollout abort {}", rollout.id))) "." } }
        }
        (parts::scrolling("Devices of the newest roll-out", &html! {
            table {
                caption .hidden { "Devices that were admitted" }
                thead { tr { th scope="col" { "Device" } th scope="col" .number { "Stage" } th scope="col" { "State" } th scope="col" { "Since" } th scope="col" { "Why" } } }
                tbody { @for (device, member) in &rollout.members { (row(device.as_str(), member)) } }
            }
        }))
    }
}

fn row(device: &str, member: &Member) -> Markup {
    let (tone, word) = match member.state {
        MemberState::Moving => (Tone::Busy, "Moving"),
        MemberState::Healthy => (Tone::Good, "Healthy"),
        MemberState::Failed => (Tone::Bad, "Failed"),
        MemberState::Unknown => (Tone::Unknown, "Unknown"),
    };
    html! {
        tr {
            td { a href=(format!("/devices/{device}")) { (device) } }
            td .number { (member.stage + 1) }
            td { (parts::badge(tone, word)) @if member.overlooked { span .sub { "gone on without it" } } }
            td .nowrap { (parts::when(member.since)) }
            td .wide { (member.why) }
        }
    }
}

fn table(past: &[Rollout]) -> Markup {
    if past.is_empty() {
        return html! { p .empty { "None." } };
    }
    let rows = html! {
        table {
            caption .hidden { "Earlier roll-outs, newest first" }
            thead { tr {
                th scope="col" .number { "Number" } th scope="col" { "State" } th scope="col" { "Revision" } th scope="col" { "Stage" }
                th scope="col" .number { "Healthy" } th scope="col" .number { "Failed" } th scope="col" .number { "Unknown" } th scope="col" { "Begun" }
            } }
            tbody {
                @for rollout in past {
                    tr {
                        td .number { (rollout.id) } td { (state(rollout)) } td { (parts::code(rollout.revision.short())) " " (rollout.revision.summary) } td .nowrap { (stage(rollout)) }
                        td .number { (rollout.count(MemberState::Healthy)) } td .number { (rollout.count(MemberState::Failed)) } td .number { (rollout.count(MemberState::Unknown)) }
                        td .nowrap { (parts::when(rollout.created_at)) " by " (rollout.by) }
                    }
                }
            }
        }
    };
    parts::scrolling("Earlier roll-outs", &rows)
}
