//! `pilotis image`: the local store of Wasm images.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use kubelet::runtime::wasm::ImageStore;

use crate::dir::Dir;

#[derive(clap::Subcommand)]
pub enum Command {
    /// Makes a component known under a name that pods can give as their image
    Import {
        /// `hello:v1`
        name: String,
        /// The component (`wasi:cli/command` or `wasi:http/proxy`)
        file: PathBuf,
        #[command(flatten)]
        place: Place,
    },
    /// Names and digests of all images
    List {
        #[command(flatten)]
        place: Place,
    },
    /// Forgets an image; pods that run it go on
    Remove {
        name: String,
        #[command(flatten)]
        place: Place,
    },
}

#[derive(clap::Args)]
pub struct Place {
    /// The cluster's folder [default: ~/.pilotis]
    #[arg(long)]
    dir: Option<PathBuf>,
}

impl Place {
    fn open(&self) -> Result<ImageStore> {
        let dir = Dir::of(self.dir.as_deref())?;
        dir.create()?;
        ImageStore::open(dir.images()).context("the image store cannot be opened")
    }
}

pub fn run(command: Command) -> Result<()> {
    match command {
        Command::Import { name, file, place } => {
            let image = place.open()?.import(&name, &file);
            let image = image.with_context(|| format!("{} cannot be imported", file.display()))?;
            println!("{name} {}", image.digest);
        }
        Command::List { place } => {
            for image in place.open()?.list()? {
                println!("{} {}", image.reference, image.digest);
            }
        }
        Command::Remove { name, place } => {
            ensure!(place.open()?.remove(&name)?, "there is no image {name}");
        }
    }
    Ok(())
}
