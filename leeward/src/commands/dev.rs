//! `leeward dev`: a hub and simulated devices on this machine.

use crate::exit::Refused;
use crate::print::{Output, Table, list, note};
use anyhow::{Context as _, Result};
use serde::Serialize;
use sim::{GitServer, GitServerOptions, World};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder of the simulated world
    #[arg(
        long,
        global = true,
        default_value = "/var/lib/leeward-dev",
        env = "LEEWARD_DEV",
        value_name = "DIR"
    )]
    dir: PathBuf,
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
        device: String,
    },
    /// Restore a device's link
    Restore {
        /// Which
        device: String,
    },
    /// Limit a device's link
    Shape {
        /// Which
        device: String,
        /// kbit/s; unlimited where absent
        #[arg(long)]
        kbit: Option<u32>,
    },
    /// Kill a device's agent with SIGKILL
    Kill {
        /// Which
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
struct Row {
    name: String,
    class: String,
    address: String,
    agent: String,
    link: String,
}

impl Args {
    pub fn run(self) -> Result<()> {
        if let Verb::ServeGit { root, listen } = &self.verb {
            return serve_git(root.clone(), *listen);
        }
        let program = std::env::current_exe().context("where is this program?")?;
        let mut world = World::open(&self.dir, &program)?;
        match self.verb {
            Verb::Up { devices, app } => super::asking(async move {
                world.up().await?;
                let fleet = if devices.is_empty() { sim::fleet() } else { devices };
                sim::start(&mut world, &fleet, app.as_deref()).await?;
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
            Verb::Shape { device, kbit } => world.shape(&device, kbit),
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
            Verb::ServeGit { .. } => Ok(()),
        }
    }
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
        })
        .collect();
    if !world.hub_alive() {
        note("the hub does not run; `leeward dev up` starts everything");
    }
    list(output, &rows, || Table {
        head: &["NAME", "CLASS", "ADDRESS", "AGENT", "LINK"],
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
