//! `leeward hub authority`: whom devices and people trust, and the roll-over to the next.

use crate::people::AccessArgs;
use crate::print::{Output, Table, list, note, one};
use anyhow::Result;
use wire::api::{AuthorityState, NewStep, RollOver};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Show whom devices and people trust
    List {
        /// Form of the output
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Make a new authority, trusted beside the present one, which issues from now on
    ///
    /// Devices that are connected follow at once, those that are away when they return: the old authority's signature
    /// over the new one leads them there. The old one stays trusted until `retire`.
    Roll,
    /// Trust the old authority no more
    ///
    /// Refused while a device holds none of the new one's certificates: it would have to be enrolled again by hand.
    Retire {
        /// Shut out the devices that have not followed
        #[arg(long)]
        force: bool,
    },
}

impl Args {
    pub async fn run(self, access: AccessArgs) -> Result<()> {
        let hub = access.client()?;
        let step = |step, force| NewStep { step, force };
        match self.verb {
            Verb::List { output } => tell(&hub.authority().await?, output),
            Verb::Roll => {
                let state = hub.authority().await?;
                if !state.authorities.iter().any(|authority| authority.role == "next") {
                    hub.roll_over(&step(RollOver::Prepare, false)).await?;
                }
                let state = hub.roll_over(&step(RollOver::Activate, false)).await?;
                trust(&access, &state)?;
                tell(&state, Output::Table)
            }
            Verb::Retire { force } => {
                let state = hub.roll_over(&step(RollOver::Retire, force)).await?;
                trust(&access, &state)?;
                tell(&state, Output::Table)
            }
        }
    }
}

/// This person's own file follows, as devices do.
fn trust(access: &AccessArgs, state: &AuthorityState) -> Result<()> {
    let mut own = access.read()?;
    own.ca = state
        .authorities
        .iter()
        .map(|authority| authority.certificate.as_str())
        .collect();
    let path = access.path()?;
    own.write(&path)?;
    note(&format!(
        "{} trusts these; hand it, or `ca` in it, to other people of this hub",
        path.display()
    ));
    Ok(())
}

fn tell(state: &AuthorityState, output: Output) -> Result<()> {
    match output {
        Output::Json | Output::Yaml => one(output, state, String::new),
        Output::Table | Output::Wide => {
            list(output, &state.authorities, || Table {
                head: &["ROLE", "FINGERPRINT", "VALID UNTIL"],
                wide: 0,
                rows: state
                    .authorities
                    .iter()
                    .map(|authority| {
                        vec![
                            authority.role.clone(),
                            authority.fingerprint.clone(),
                            authority.not_after.to_string(),
                        ]
                    })
                    .collect(),
            })?;
            if !state.behind.is_empty() {
                let names: Vec<&str> = state.behind.iter().map(model::DeviceName::as_str).collect();
                note(&format!(
                    "no certificate of the issuing one yet: {}; `retire` waits for them, each renews when two thirds of its \
                     certificate's life are over",
                    names.join(", ")
                ));
            }
            Ok(())
        }
    }
}
