//! `plugin-images FOLDER COMPONENT.wasm…`: compiles each component into `FOLDER/COMPONENT.image` for the binary to hold, unless that is there already.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs, io};

use plugin::Images;

fn main() -> ExitCode {
    let mut arguments = env::args_os().skip(1).map(PathBuf::from);
    let Some(folder) = arguments.next() else {
        eprintln!("usage: plugin-images FOLDER COMPONENT.wasm…");
        return ExitCode::from(2);
    };
    let components: Vec<PathBuf> = arguments.collect();
    match make(&folder, &components) {
        Ok(()) => ExitCode::SUCCESS,
        Err(wrong) => {
            eprintln!("plugin-images: {wrong}");
            ExitCode::FAILURE
        }
    }
}

fn make(folder: &Path, components: &[PathBuf]) -> Result<(), String> {
    let at = |path: &Path, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    fs::create_dir_all(folder).map_err(|error| at(folder, &error))?;
    let mut wanted: Vec<OsString> = Vec::new();
    for component in components {
        let image = folder
            .join(component.file_stem().unwrap_or_default())
            .with_extension("image");
        wanted.extend(image.file_name().map(Into::into));
        let bytes = fs::read(component).map_err(|error| at(component, &error))?;
        let old = fs::read(&image).ok();
        if let Some(new) = Images::compile(&bytes, old.as_deref()).map_err(|error| at(component, &error))? {
            replace(&image, &new).map_err(|error| at(&image, &error))?;
        }
    }
    // The image of a plugin that is gone would stay in every later binary.
    for entry in fs::read_dir(folder).map_err(|error| at(folder, &error))? {
        let entry = entry.map_err(|error| at(folder, &error))?;
        if !wanted.contains(&entry.file_name()) {
            fs::remove_file(entry.path()).map_err(|error| at(&entry.path(), &error))?;
        }
    }
    Ok(())
}

/// By rename: a build that reads at this moment sees the old or the new image, never half of one.
fn replace(image: &Path, bytes: &[u8]) -> io::Result<()> {
    let torn = image.with_extension("new");
    fs::write(&torn, bytes)?;
    fs::rename(&torn, image)
}
