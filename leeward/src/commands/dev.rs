//! `leeward dev`: a hub and simulated devices on this machine.

use super::completions::simulated;
use crate::exit::Refused;
use crate::print::{Output, Table, list, note, or_dash};
use anyhow::{Context as _, Result};
use clap_complete::ArgValueCandidates;
use serde::Serialize;
use sim::{Delay, GitServer, GitServerOptions, Loss, Rate, Shape, World};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder of the simulated world; /var/lib/leeward-dev for root, ~/.local/state/leeward-dev for others
    #[arg(long, global = true, env = "LEEWARD_DEV", value_name = "DIR")]
    dir: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Start hub, Git server and devices, or those of them that do not run
    Up {
        /// NAME=CLASS; the demo's four where none are given
        #[arg(value_parser = device)]
        devices: Vec<(String, String)>,
        /// The static demo application, to build the example images from
        #[arg(long, value_name = "FILE")]
        app: Option<PathBuf>,
        /// The hub's configuration, where it is started: what is kept, where telemetry goes (docs/guides/forwarding.md)
        #[arg(long, value_name = "FILE")]
        hub_config: Option<PathBuf>,
    },
    /// Show what runs
    Status {
        /// Form of the output
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Cut a device's link
    Cut {
        /// Which
        #[arg(add = ArgValueCandidates::new(simulated))]
        device: String,
    },
    /// Restore a device's link: neither cut nor limited
    Restore {
        /// Which
        #[arg(add = ArgValueCandidates::new(simulated))]
        device: String,
    },
    /// Make a device's link worse, the same in each direction, until `restore`
    #[command(group = clap::ArgGroup::new("limits").required(true).multiple(true))]
    Shape {
        /// Which
        #[arg(add = ArgValueCandidates::new(simulated))]
        device: String,
        /// Bits each second, such as 1mbit
        #[arg(long, group = "limits")]
        rate: Option<Rate>,
        /// How late everything comes, such as 200ms
        #[arg(long, group = "limits")]
        delay: Option<Delay>,
        /// How much does not come, such as 1%
        #[arg(long, group = "limits")]
        loss: Option<Loss>,
    },
    /// Kill a device's agent with SIGKILL
    Kill {
        /// Which
        #[arg(add = ArgValueCandidates::new(simulated))]
        device: String,
    },
    /// Commit the work tree of the example repository, and push it
    Push {
        /// Commit message
        #[arg(short, long, default_value = "Change the fleet")]
        message: String,
    },
    /// Stop and remove everything
    Down,
    /// Show the whole story, with checks
    Demo {
        /// The static demo application
        #[arg(long, value_name = "FILE")]
        app: PathBuf,
        /// Exit at the end instead of staying up
        #[arg(long)]
        once: bool,
    },
    /// Measure figures and print them as JSON, for `cargo xtask bench`
    #[command(hide = true)]
    Bench {
        /// The static demo application
        #[arg(long, value_name = "FILE")]
        app: PathBuf,
        /// Which; all where none are given
        names: Vec<String>,
        /// The agents' program, where it is not this one
        #[arg(long, value_name = "FILE")]
        agent_program: Option<PathBuf>,
        /// Count bytes written for a minute instead of ten
        #[arg(long)]
        short: bool,
    },
    /// Hold the namespaces of a user's world
    #[command(hide = true)]
    Hold,
    /// The first process in them
    #[command(hide = true)]
    Init,
    /// Disturb a device's link
    #[command(hide = true)]
    Relay {
        index: u8,
        #[arg(long)]
        delay: u64,
        #[arg(long)]
        loss: f64,
    },
    /// Serve bare repositories over HTTP
    #[command(hide = true)]
    ServeGit {
        #[arg(long)]
        root: PathBuf,
        #[arg(long)]
        listen: SocketAddr,
    },
}

fn device(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(name, class)| (name.to_owned(), class.to_owned()))
        .ok_or_else(|| "write NAME=CLASS, such as pi-1=raspberry-pi-5".to_owned())
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    name: String,
    class: String,
    address: String,
    agent: String,
    link: String,
    /// Limits of the link.
    shape: String,
    /// Milliseconds to the hub and back, now.
    round_trip: Option<f64>,
}

impl Args {
    pub fn run(self) -> Result<()> {
        let dir = self.dir.map_or_else(default_dir, Ok)?;
        match &self.verb {
            Verb::ServeGit { root, listen } => return serve_git(root.clone(), *listen),
            Verb::Hold => return sim::rootless::hold(&dir),
            Verb::Init => return sim::rootless::init(),
            Verb::Relay { index, delay, loss } => {
                return sim::disturb(*index, Duration::from_millis(*delay), *loss);
            }
            _ if sim::rootless::needed() => std::process::exit(sim::rootless::enter(&dir)?.into()),
            _ => {}
        }
        let program = std::env::current_exe().context("where is this program?")?;
        let mut world = World::open(&dir, &program)?;
        match self.verb {
            Verb::Up {
                devices,
                app,
                hub_config,
            } => super::asking(async move {
                world.configure_hub(hub_config);
                world.up().await?;
                let fleet = if devices.is_empty() { sim::fleet() } else { devices };
                for gap in sim::start(&mut world, &fleet, app.as_deref()).await? {
                    note(&format!("not to be had here: {gap}"));
                }
                note(&format!("dashboard: {}", sim::dashboard(&world).await?));
                note(&format!(
                    "for other commands: export LEEWARD_ACCESS={}",
                    world.access_file().display()
                ));
                note(&format!(
                    "repository: {} (change it, then `leeward dev push`)",
                    world.work_tree().display()
                ));
                Ok(())
            }),
            Verb::Status { output } => status(&world, output),
            Verb::Cut { device } => world.cut(&device),
            Verb::Restore { device } => world.restore(&device),
            Verb::Shape {
                device,
                rate,
                delay,
                loss,
            } => world.shape(&device, Shape { rate, delay, loss }),
            Verb::Kill { device } => world.kill_agent(&device),
            Verb::Push { message } => match world.push(&message)? {
                Some(commit) => {
                    note(&format!("pushed {}", &commit[..12]));
                    Ok(())
                }
                None => Err(Refused(format!(
                    "nothing to push: change {} first",
                    world.work_tree().display()
                ))
                .into()),
            },
            Verb::Down => world.down(),
            Verb::Demo { app, once } => super::asking(sim::demo::run(world, app, once, super::stop_signal())),
            Verb::Bench {
                app,
                names,
                agent_program,
                short,
            } => {
                let plan = sim::bench::Plan {
                    app,
                    names,
                    agent_program,
                    short,
                };
                super::asking(sim::bench::run(world, plan, super::stop_signal()))
            }
            Verb::ServeGit { .. } | Verb::Hold | Verb::Init | Verb::Relay { .. } => Ok(()),
        }
    }
}

pub fn default_dir() -> Result<PathBuf> {
    if !sim::rootless::needed() && !sim::rootless::inside() {
        return Ok("/var/lib/leeward-dev".into());
    }
    let base = std::env::var_os("XDG_STATE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state")))
        .context("neither HOME nor XDG_STATE_HOME is set; name a folder with --dir")?;
    Ok(base.join("leeward-dev"))
}

fn status(world: &World, output: Output) -> Result<()> {
    let rows: Vec<Row> = world
        .devices()
        .iter()
        .map(|device| Row {
            name: device.name.to_string(),
            class: device.class.to_string(),
            address: device.address().to_string(),
            agent: if device.alive() { "running" } else { "stopped" }.to_owned(),
            link: match world.is_cut(device) {
                Ok(true) => "cut".to_owned(),
                Ok(false) => "up".to_owned(),
                Err(err) => format!("unknown: {err}"),
            },
            shape: device.shape.as_ref().map(ToString::to_string).unwrap_or_default(),
            round_trip: (world.round_trip(device).ok()).map(|time| time.as_secs_f64() * 1e3),
        })
        .collect();
    if !world.hub_alive() {
        note("the hub does not run; `leeward dev up` starts everything");
    }
    list(output, &rows, || Table {
        head: &["NAME", "CLASS", "ADDRESS", "AGENT", "LINK", "SHAPE", "ROUND TRIP"],
        wide: 0,
        rows: rows
            .iter()
            .map(|r| {
                vec![
                    r.name.clone(),
                    r.class.clone(),
                    r.address.clone(),
                    r.agent.clone(),
                    r.link.clone(),
                    or_dash((!r.shape.is_empty()).then_some(&r.shape)),
                    or_dash(r.round_trip.map(|millis| format!("{millis:.1} ms"))),
                ]
            })
            .collect(),
    })
}

fn serve_git(root: PathBuf, listen: SocketAddr) -> Result<()> {
    std::fs::create_dir_all(&root)?;
    let listener = TcpListener::bind(listen).with_context(|| format!("cannot listen at {listen}"))?;
    let _server = GitServer::start(
        listener,
        GitServerOptions {
            root,
            ..Default::default()
        },
    )?;
    super::asking(async {
        super::stop_signal().await;
        Ok(())
    })
}
