//! What `leeward` is in the product: `shim-host shim ...` is `leeward shim ...`, and `shim-host agent` an agent that
//! takes steps from its standard input, to be killed at any moment.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "part of the tests")]

use model::{ImageRef, Step};
use runtime::Engine as _;
use runtime::embedded::{Answer, Embedded, EmbeddedConfig, ImageSource, LocalImage, Pace, Pull};
use std::io::BufRead as _;
use std::process::ExitCode;
use std::sync::Arc;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    match args.next().unwrap().to_str().unwrap() {
        "shim" => ExitCode::from(runtime::shim::main(args.collect())),
        "agent" => {
            let args: Vec<String> = args.map(|arg| arg.into_string().unwrap()).collect();
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap()
                .block_on(agent(&args));
            ExitCode::SUCCESS
        }
        other => panic!("{other}"),
    }
}

/// `agent ROOT GROUP IMAGE PACE`, the last two as JSON.
async fn agent(args: &[String]) {
    let [root, group, image, pace] = args else {
        panic!("{args:?}")
    };
    let mut config = EmbeddedConfig::new(root, group);
    config.pace = serde_json::from_str::<Pace>(pace).unwrap();
    let images = Arc::new(One(serde_json::from_str(image).unwrap()));
    let engine = Embedded::open(config, images, None).await.unwrap();
    println!("open");
    for line in std::io::stdin().lock().lines() {
        let step: Step = serde_json::from_str(&line.unwrap()).unwrap();
        engine.apply(&step).await.unwrap();
        println!("done");
    }
}

#[derive(Debug)]
struct One(LocalImage);

impl ImageSource for One {
    fn local<'a>(&'a self, _: &'a ImageRef) -> Answer<'a, Option<LocalImage>> {
        Box::pin(async { Ok(Some(self.0.clone())) })
    }
    fn pull<'a>(&'a self, _: Pull<'a>) -> Answer<'a, LocalImage> {
        Box::pin(async { Ok(self.0.clone()) })
    }
    fn keep(&self, _: &str, _: &[LocalImage]) -> Result<(), String> {
        Ok(())
    }
    fn owners(&self) -> Vec<String> {
        Vec::new()
    }
}
