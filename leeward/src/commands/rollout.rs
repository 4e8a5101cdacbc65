//! `leeward rollout`: revisions go over the fleet in stages.

use crate::people::AccessArgs;
use crate::print::{Output, Table, age, lay_out, list, note, one, seconds};
use anyhow::{Context as _, Result, ensure};
use jiff::SignedDuration;
use model::{MemberState, Rollout, RolloutPolicy, RolloutState, Stage, Unreachable};
use std::fmt::Write as _;
use wire::ApiClient;
use wire::api::{NewRollout, PolicyState, RolloutAct};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Show or set how revisions are rolled out
    ///
    /// With a policy, devices move only to what a roll-out admits. A newer revision that a device sees begins one by
    /// itself: stage after stage is admitted, each when the one before was healthy for its time, then everybody.
    Policy(PolicyArgs),
    /// Roll out a revision that does not begin by itself, such as an older one
    Start {
        /// First digits of a commit that a device has told of
        revision: String,
        /// Form of the output
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Show a roll-out, with each device
    Show(OneArgs),
    /// Admit no further device until resumed
    Pause(OneArgs),
    /// Go on, over the devices that have failed or are away so far
    Resume(OneArgs),
    /// End a roll-out: who was admitted stays so, who was not stays where it is
    Abort(OneArgs),
}

#[derive(Debug, clap::Args)]
struct OneArgs {
    /// Its number, as `leeward get rollouts` lists it
    id: u64,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, clap::Args)]
struct PolicyArgs {
    /// First to last, such as canary=yes,3,25%: a label (class and site count as labels), or how many devices have
    /// moved after the stage, as a number or a share
    #[arg(long, value_delimiter = ',')]
    stages: Vec<Stage>,
    /// How long the devices of a stage must be healthy before the next one
    #[arg(long, default_value = "1m", requires = "stages")]
    healthy_for: SignedDuration,
    /// How long a device that can be reached may take to become healthy
    #[arg(long, default_value = "15m", requires = "stages")]
    deadline: SignedDuration,
    /// How many devices may fail before it halts
    #[arg(long, default_value_t = 0, requires = "stages")]
    max_failures: u32,
    /// What to do about a device of a stage that cannot be reached
    #[arg(long, value_enum, default_value = "continue", requires = "stages")]
    unreachable: OnUnreachable,
    /// Let devices follow their source by themselves again
    #[arg(long, conflicts_with = "stages")]
    off: bool,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum OnUnreachable {
    /// Another device takes its place, and it follows when it is back
    Continue,
    /// Halt until a person resumes
    Halt,
}

impl Args {
    pub async fn run(self, access: AccessArgs) -> Result<()> {
        let hub = access.client()?;
        match self.verb {
            Verb::Policy(args) => args.run(&hub).await,
            Verb::Start { revision, output } => {
                show(output, &hub.begin_rollout(&NewRollout { revision }).await?)
            }
            Verb::Show(OneArgs { id, output }) => show(output, &hub.rollout(id).await?),
            Verb::Pause(args) => act(&hub, args, RolloutAct::Pause).await,
            Verb::Resume(args) => act(&hub, args, RolloutAct::Resume).await,
            Verb::Abort(args) => act(&hub, args, RolloutAct::Abort).await,
        }
    }
}

async fn act(hub: &ApiClient, OneArgs { id, output }: OneArgs, act: RolloutAct) -> Result<()> {
    show(output, &hub.act_on_rollout(id, act).await?)
}

impl PolicyArgs {
    async fn run(self, hub: &ApiClient) -> Result<()> {
        let state = if self.off {
            let state = hub.set_rollout_policy(None).await?;
            note("devices follow their source by themselves");
            state
        } else if self.stages.is_empty() {
            hub.rollout_policy().await?
        } else {
            hub.set_rollout_policy(Some(&self.policy()?)).await?
        };
        one(self.output, &state, || policy_text(&state))
    }

    fn policy(&self) -> Result<RolloutPolicy> {
        let positive = |what: &str, time: SignedDuration| {
            let seconds = u64::try_from(time.as_secs()).ok().filter(|_| !time.is_negative());
            seconds.with_context(|| format!("--{what} must not be negative"))
        };
        let deadline_seconds = positive("deadline", self.deadline)?;
        ensure!(deadline_seconds > 0, "--deadline must be a second at least");
        Ok(RolloutPolicy {
            stages: self.stages.clone(),
            healthy_for_seconds: positive("healthy-for", self.healthy_for)?,
            deadline_seconds,
            max_failures: self.max_failures,
            unreachable: match self.unreachable {
                OnUnreachable::Continue => Unreachable::Continue,
                OnUnreachable::Halt => Unreachable::Halt,
            },
        })
    }
}

fn policy_text(state: &PolicyState) -> String {
    let Some(policy) = &state.policy else {
        return "none: devices follow their source by themselves\n".to_owned();
    };
    let unreachable = match policy.unreachable {
        Unreachable::Continue => "continue",
        Unreachable::Halt => "halt",
    };
    let mut text = format!(
        "Stages:        {}, then everybody\nHealthy for:   {}\nDeadline:      {}\nMax failures:  {}\nUnreachable:   {unreachable}\n",
        policy.stages_text(),
        seconds(policy.healthy_for_seconds),
        seconds(policy.deadline_seconds),
        policy.max_failures,
    );
    if let (Some(by), Some(at)) = (&state.set_by, state.set_at) {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "Set by:        {by}, {} ago", age(at));
    }
    text
}

/// Of how many stages; the last one is everybody.
fn stage(rollout: &Rollout) -> String {
    format!("{}/{}", rollout.stage + 1, rollout.policy.stages.len() + 1)
}

fn message(rollout: &Rollout) -> &str {
    match &rollout.state {
        RolloutState::Halted { why } => why,
        _ => &rollout.revision.summary,
    }
}

/// `leeward get rollouts`.
pub async fn get(hub: &ApiClient, limit: u32, output: Output) -> Result<()> {
    let rows = hub.rollouts(limit).await?;
    list(output, &rows, || Table {
        head: &[
            "ID", "REVISION", "STATE", "STAGE", "MOVING", "HEALTHY", "FAILED", "UNKNOWN", "AGE", "MESSAGE",
            "STAGES", "BY",
        ],
        wide: 2,
        rows: rows
            .iter()
            .map(|row| {
                vec![
                    row.id.to_string(),
                    row.revision.short().to_owned(),
                    row.state.word().to_owned(),
                    stage(row),
                    row.count(MemberState::Moving).to_string(),
                    row.count(MemberState::Healthy).to_string(),
                    row.count(MemberState::Failed).to_string(),
                    row.count(MemberState::Unknown).to_string(),
                    age(row.created_at),
                    message(row).to_owned(),
                    row.policy.stages_text(),
                    row.by.clone(),
                ]
            })
            .collect(),
    })
}

fn show(output: Output, rollout: &Rollout) -> Result<()> {
    one(output, rollout, || {
        let mut text = format!(
            "Roll-out:  {}\nRevision:  {} {}\nState:     {}\nStage:     {} of {}, then everybody\nBegun:     {} ago by {}\n",
            rollout.id,
            rollout.revision,
            rollout.revision.summary,
            rollout.state.word(),
            stage(rollout),
            rollout.policy.stages_text(),
            age(rollout.created_at),
            rollout.by,
        );
        if let RolloutState::Halted { why } = &rollout.state {
            let _ = writeln!(text, "Why:       {why}");
        }
        let rows = rollout.members.iter().map(|(device, member)| {
            vec![
                device.to_string(),
                (member.stage + 1).to_string(),
                format!("{:?}", member.state),
                age(member.since),
                member.why.clone(),
            ]
        });
        let table = Table {
            head: &["DEVICE", "STAGE", "STATE", "SINCE", "WHY"],
            wide: 0,
            rows: rows.collect(),
        };
        text.push('\n');
        text.push_str(&lay_out(&table, table.head.len()));
        text
    })
}
