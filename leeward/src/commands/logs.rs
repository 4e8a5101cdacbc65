//! `leeward logs`: through the hub, or at the device itself.

use super::local::{LocalArgs, ask_logs};
use crate::people::AccessArgs;
use crate::print;
use anyhow::Result;
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
    /// Only lines since then: 10m (ago), or a time such as 2026-11-25T10:15:00Z
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Timestamp>,
    /// Only lines until then, in the same words
    #[arg(long, value_name = "TIME", value_parser = moment, conflicts_with = "follow")]
    until: Option<Timestamp>,
    /// Only lines in which this regular expression is found; (?i) in front ignores case
    #[arg(long, value_name = "REGEX", value_parser = expression)]
    grep: Option<String>,
    /// json: an object per line, with time, stream, container and message
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
    #[command(flatten)]
    local: LocalArgs,
}

/// How lines are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    /// As the container wrote them
    #[default]
    Text,
    /// An object per line
    Json,
}

/// A time, or how long ago.
fn moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    let back = text
        .parse::<SignedDuration>()
        .map_err(|_| "write 10m, 2h30m, or 2026-11-25T10:15:00Z".to_owned())?;
    Timestamp::now().checked_sub(back).map_err(|err| err.to_string())
}

fn expression(text: &str) -> Result<String, String> {
    runtime::logs::Grep::parse(text).map(|_| text.to_owned())
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
        let ask = LogAsk {
            namespace: self.namespace,
            pod,
            container: self.container,
            follow: self.follow,
            previous: self.previous,
            timestamps: self.timestamps,
            tail: self.tail,
            since: self.since,
            until: self.until,
            grep: self.grep,
            json: self.output == Form::Json,
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
