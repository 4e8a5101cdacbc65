//! `leeward logs`: through the hub, or at the device itself.

use super::local::{LocalArgs, ask_logs};
use crate::people::AccessArgs;
use crate::print;
use anyhow::{Context as _, Result};
use jiff::{SignedDuration, Timestamp};
use model::DeviceName;
use wire::frame::LogAsk;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Device and pod or workload; with --local the pod or workload alone
    #[arg(value_name = "DEVICE POD", num_args = 1..=2, required = true)]
    #[cfg_attr(feature = "hub", arg(add = clap_complete::ArgValueCandidates::new(super::completions::devices)))]
    words: Vec<String>,
    /// Namespace of the pod
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Which container; the only or first one where absent
    #[arg(short, long)]
    container: Option<String>,
    /// Go on with what is written later
    #[arg(short, long)]
    follow: bool,
    /// Of the run before the present one
    #[arg(short, long)]
    previous: bool,
    /// Put the time in front of each line
    #[arg(long)]
    timestamps: bool,
    /// Only so many of the last lines
    #[arg(long)]
    tail: Option<u64>,
    /// Only lines of the last so long, such as 10m
    #[arg(long)]
    since: Option<SignedDuration>,
    #[command(flatten)]
    local: LocalArgs,
}

impl Args {
    pub async fn run(self, access: AccessArgs) -> Result<()> {
        let (device, pod) = match (self.local.local, self.words.as_slice()) {
            (true, [pod]) => (None, pod.clone()),
            (false, [device, pod]) => (Some(device.parse::<DeviceName>()?), pod.clone()),
            _ => anyhow::bail!(
                "give a device and a pod: leeward logs DEVICE POD (or, at the device, leeward logs --local POD)"
            ),
        };
        let since = match self.since {
            None => None,
            Some(back) => Some(Timestamp::now().checked_sub(back).context("--since")?),
        };
        let ask = LogAsk {
            namespace: self.namespace,
            pod,
            container: self.container,
            follow: self.follow,
            previous: self.previous,
            timestamps: self.timestamps,
            tail: self.tail,
            since,
        };
        let Some(device) = device else {
            return ask_logs(&self.local, ask).await;
        };
        let mut stream = access.client()?.logs(&device, &ask).await?;
        while let Some(data) = stream.next().await? {
            print::raw(&data)?;
        }
        Ok(())
    }
}
