//! Volumes as folders: gathered from the cluster first, then written, then swapped in at once.
//!
//! A volume of files has the layout of Kubernetes' atomic writer: `NAME -> ..data/NAME`, `..data -> ..TIME`. Readers see
//! all of one revision or all of the next. A crash leaves at most a `..TIME` folder that nothing points to; the next
//! write takes it away.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use jiff::Timestamp;

use crate::env::{Placed, field_value, resource_value};
use crate::files::{self, Layout};
use crate::pod::spec::{ContainerSpec, DownwardSource, KeyToPath, Pod, Projection, Volume};
use crate::read::{Keys, Reader};

/// Path below the volume → bytes and mode.
type Files = BTreeMap<String, (Vec<u8>, u32)>;

/// What is to be done again later. Handed from one `prepare` of a pod to its next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Upkeep {
    /// Something in a volume may change in the cluster.
    pub changes: bool,
    /// By audience and life asked for: the token, and when it is to be renewed.
    tokens: BTreeMap<(String, u64), (String, Timestamp)>,
}

impl Upkeep {
    /// The first token's renewal.
    pub fn renew_at(&self) -> Option<Timestamp> {
        self.tokens.values().map(|(_, at)| *at).min()
    }
}

/// Makes all of a pod's volumes, or brings them up to date. The error is a sentence for the event.
pub(crate) async fn prepare(
    pod: &Pod,
    layout: &Layout,
    placed: &Placed,
    reader: &Reader,
    now: Timestamp,
    before: Upkeep,
) -> Result<Upkeep, String> {
    let mut upkeep = Upkeep {
        changes: false,
        ..before
    };
    for volume in &pod.spec.volumes {
        let fails = |message: String| format!("MountVolume.SetUp failed for volume \"{}\" : {message}", volume.name);
        let files = gather(pod, volume, placed, reader, now, &mut upkeep)
            .await
            .map_err(fails)?;
        let path = layout.volume(&pod.metadata.uid, &volume.name);
        let host = volume.host_path.clone();
        let work = tokio::task::spawn_blocking(move || match (files, host) {
            (Some(files), _) => write(&path, &files, now).map_err(|e| format!("{}: {e}", path.display())),
            (None, Some(host)) => check_host_path(&host.path, &host.r#type),
            (None, None) => make_empty(&path).map_err(|e| format!("{}: {e}", path.display())),
        });
        work.await.map_err(|e| fails(e.to_string()))?.map_err(fails)?;
    }
    Ok(upkeep)
}

/// The files of a volume that is made of files; `None` for one that is a folder.
async fn gather(
    pod: &Pod,
    volume: &Volume,
    placed: &Placed,
    reader: &Reader,
    now: Timestamp,
    upkeep: &mut Upkeep,
) -> Result<Option<Files>, String> {
    let mut files = Files::new();
    if let Some(source) = &volume.config_map {
        let part = Projection {
            config_map: Some(source.clone()),
            ..Projection::default()
        };
        project(pod, &part, source.default_mode, placed, reader, now, &mut files, upkeep).await?;
    } else if let Some(source) = &volume.secret {
        let mut source = source.clone();
        source.name = source.secret_name.clone();
        let mode = source.default_mode;
        let part = Projection {
            secret: Some(source),
            ..Projection::default()
        };
        project(pod, &part, mode, placed, reader, now, &mut files, upkeep).await?;
    } else if let Some(source) = &volume.downward_api {
        let part = Projection {
            downward_api: Some(source.clone()),
            ..Projection::default()
        };
        project(pod, &part, source.default_mode, placed, reader, now, &mut files, upkeep).await?;
    } else if let Some(projected) = &volume.projected {
        for part in &projected.sources {
            project(
                pod,
                part,
                projected.default_mode,
                placed,
                reader,
                now,
                &mut files,
                upkeep,
            )
            .await?;
        }
    } else if volume.empty_dir.is_some() || volume.host_path.is_some() {
        return Ok(None);
    } else {
        let kind = volume.other.keys().next().map_or("nothing", String::as_str);
        return Err(format!("this kubelet cannot mount volumes of type {kind}"));
    }
    Ok(Some(files))
}

#[expect(
    clippy::too_many_arguments,
    reason = "one source of files; a struct for one caller would only rename them"
)]
async fn project(
    pod: &Pod,
    part: &Projection,
    default_mode: Option<u32>,
    placed: &Placed,
    reader: &Reader,
    now: Timestamp,
    files: &mut Files,
    upkeep: &mut Upkeep,
) -> Result<(), String> {
    let namespace = &pod.metadata.namespace;
    let mode = default_mode.unwrap_or(0o644);
    if let Some(source) = &part.config_map {
        upkeep.changes = true;
        let keys = reader
            .config_map(namespace, &source.name)
            .await
            .map_err(|f| f.to_string())?;
        let what = format!("configmap \"{}\"", source.name);
        select(keys, &source.items, source.optional, mode, &what, files)?;
    }
    if let Some(source) = &part.secret {
        upkeep.changes = true;
        let keys = reader
            .secret(namespace, &source.name)
            .await
            .map_err(|f| f.to_string())?;
        let what = format!("secret \"{}\"", source.name);
        select(keys, &source.items, source.optional, mode, &what, files)?;
    }
    if let Some(source) = &part.downward_api {
        downward(pod, source, mode, placed, files)?;
        upkeep.changes = true;
    }
    if let Some(source) = &part.service_account_token {
        let key = (source.audience.clone(), source.expiration_seconds.max(600));
        let held = upkeep.tokens.get(&key).filter(|(_, renew_at)| *renew_at > now);
        let token = match held {
            Some((token, _)) => token.clone(),
            None => {
                let answer = reader.token(pod, &key.0, key.1).await;
                let (token, expires) = answer.map_err(|f| f.to_string())?;
                // Renewed when 80 % of its life is over, as Kubernetes does.
                let renew_at = now
                    .saturating_add(expires.duration_since(now) * 4 / 5)
                    .unwrap_or(expires);
                upkeep.tokens.insert(key, (token.clone(), renew_at));
                token
            }
        };
        files.insert(source.path.clone(), (token.into_bytes(), mode));
    }
    Ok(())
}

fn downward(pod: &Pod, source: &DownwardSource, mode: u32, placed: &Placed, files: &mut Files) -> Result<(), String> {
    for item in &source.items {
        let value = match (&item.field_ref, &item.resource_field_ref) {
            (Some(field), _) => field_value(pod, placed, field)?,
            (None, Some(resource)) => resource_value(pod, &ContainerSpec::default(), placed, resource)?,
            (None, None) => continue,
        };
        files.insert(item.path.clone(), (value.into_bytes(), item.mode.unwrap_or(mode)));
    }
    Ok(())
}

fn select(
    keys: Option<Keys>,
    items: &[KeyToPath],
    optional: bool,
    mode: u32,
    what: &str,
    files: &mut Files,
) -> Result<(), String> {
    let mut keys = match keys {
        Some(keys) => keys,
        None if optional => return Ok(()),
        None => return Err(format!("{what} not found")),
    };
    if items.is_empty() {
        files.extend(keys.into_iter().map(|(key, bytes)| (key, (bytes, mode))));
        return Ok(());
    }
    for item in items {
        match keys.remove(&item.key) {
            Some(bytes) => drop(files.insert(item.path.clone(), (bytes, item.mode.unwrap_or(mode)))),
            None if optional => {}
            None => return Err(format!("{what} references non-existent key: {}", item.key)),
        }
    }
    Ok(())
}

fn make_empty(path: &Path) -> io::Result<()> {
    files::private_dir(path)?;
    // Containers of the pod may run as any user.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777))
}

/// `hostPath.type` as the API documents it.
fn check_host_path(path: &str, kind: &str) -> Result<(), String> {
    let found = std::fs::metadata(path);
    let is_dir = found.as_ref().is_ok_and(|m| m.is_dir());
    let is_file = found.as_ref().is_ok_and(|m| m.is_file());
    match kind {
        "DirectoryOrCreate" if found.is_err() => std::fs::create_dir_all(path).map_err(|e| format!("{path}: {e}")),
        "FileOrCreate" if found.is_err() => std::fs::File::create_new(path)
            .map(drop)
            .map_err(|e| format!("{path}: {e}")),
        "Directory" | "DirectoryOrCreate" if !is_dir => {
            Err(format!("hostPath type check failed: {path} is not a directory"))
        }
        "File" | "FileOrCreate" if !is_file => Err(format!("hostPath type check failed: {path} is not a file")),
        _ => Ok(()),
    }
}

/// Writes the files beside the present ones and swaps; does nothing if they are the same.
fn write(path: &Path, files: &Files, now: Timestamp) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).create(path)?;
    let current = path.join("..data");
    if same(&current, files) {
        return Ok(());
    }
    let name = format!("..{}", now.as_nanosecond());
    let fresh = path.join(&name);
    if fresh.exists() {
        std::fs::remove_dir_all(&fresh)?;
    }
    std::fs::create_dir(&fresh)?;
    for (relative, (bytes, mode)) in files {
        let place = files::below(&fresh, relative);
        let file = place.ok_or_else(|| io::Error::other(format!("the path {relative:?} leaves the volume")))?;
        if let Some(parent) = file.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&file, bytes)?;
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(*mode))?;
    }
    let swap = path.join("..data_tmp");
    let _ = std::fs::remove_file(&swap);
    std::os::unix::fs::symlink(&name, &swap)?;
    std::fs::rename(&swap, &current)?;
    // Names are links into `..data`, made once for each first part of a path.
    let tops: std::collections::BTreeSet<&str> = files.keys().filter_map(|f| f.split('/').next()).collect();
    for top in &tops {
        let link = path.join(top);
        if std::fs::symlink_metadata(&link).is_err() {
            std::os::unix::fs::symlink(Path::new("..data").join(top), &link)?;
        }
    }
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let name_of = entry.file_name();
        let text = name_of.to_string_lossy();
        if !text.starts_with("..") && !tops.contains(text.as_ref()) {
            std::fs::remove_file(entry.path())?;
        } else if text.starts_with("..") && text != "..data" && text != name.as_str() && entry.path().is_dir() {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

fn same(current: &Path, files: &Files) -> bool {
    fn count(dir: &Path) -> usize {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        entries
            .map(|e| if e.path().is_dir() { count(&e.path()) } else { 1 })
            .sum()
    }
    current.is_dir()
        && count(current) == files.len()
        && files
            .iter()
            .all(|(name, (bytes, _))| std::fs::read(current.join(name)).is_ok_and(|held| held == *bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_changes_all_at_once_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("v");
        let files = |list: &[(&str, &str)]| -> Files {
            list.iter()
                .map(|(k, v)| ((*k).into(), (v.as_bytes().to_vec(), 0o640)))
                .collect()
        };
        let at = |n| Timestamp::from_second(n).unwrap();
        write(&path, &files(&[("a", "1"), ("deep/b", "2")]), at(1)).unwrap();
        assert_eq!(std::fs::read_to_string(path.join("deep/b")).unwrap(), "2");
        assert_eq!(
            std::fs::metadata(path.join("a")).unwrap().permissions().mode() & 0o777,
            0o640
        );
        let before = std::fs::read_link(path.join("..data")).unwrap();
        write(&path, &files(&[("a", "1"), ("deep/b", "2")]), at(2)).unwrap();
        assert_eq!(
            std::fs::read_link(path.join("..data")).unwrap(),
            before,
            "nothing changed, nothing is written"
        );
        write(&path, &files(&[("a", "3")]), at(3)).unwrap();
        assert_eq!(std::fs::read_to_string(path.join("a")).unwrap(), "3");
        let mut names: Vec<String> = std::fs::read_dir(&path)
            .unwrap()
            .map(|e| e.unwrap().file_name().to_string_lossy().into())
            .collect();
        names.sort();
        assert_eq!(names, ["..3000000000", "..data", "a"]);
        assert!(write(&path, &files(&[("../x", "1")]), at(4)).is_err());
    }
}
