//! A cluster's folder: its keys, its store, what its node keeps, and the lock that says who has it open.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use auth::pki::{Authority, generate_signing_key};
use nix::fcntl::{Flock, FlockArg};

/// `DIR`, with everything of one cluster in it and nothing of it elsewhere.
#[derive(Debug, Clone)]
pub struct Dir(PathBuf);

/// Held while a cluster runs. The kernel lets go of it however the process ends.
pub struct Lock {
    _file: Flock<File>,
}

impl Dir {
    /// The one named, or `~/.pilotis`.
    pub fn of(named: Option<&Path>) -> Result<Self> {
        let path = match named {
            Some(path) => path.to_owned(),
            None => {
                let home = std::env::var_os("HOME").context("HOME is not set: say where with --dir DIR")?;
                Path::new(&home).join(".pilotis")
            }
        };
        Ok(Self(std::path::absolute(path)?))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn create(&self) -> Result<()> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.0);
        made.with_context(|| format!("the folder {} cannot be made", self.0.display()))
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.0.join("kubeconfig")
    }

    pub fn log(&self) -> PathBuf {
        self.0.join("pilotis.log")
    }

    pub fn store(&self) -> PathBuf {
        self.0.join("store")
    }

    pub fn images(&self) -> PathBuf {
        self.0.join("images")
    }

    pub fn node(&self) -> PathBuf {
        self.0.join("node")
    }

    pub fn sandboxes(&self) -> PathBuf {
        self.0.join("sandboxes")
    }

    pub fn compiled(&self) -> PathBuf {
        self.0.join("compiled")
    }

    /// Takes the lock, or says who has it.
    pub fn lock(&self) -> Result<Lock> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.lock_file())?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut file) => {
                file.set_len(0)?;
                file.rewind()?;
                write!(file, "{}", std::process::id())?;
                Ok(Lock { _file: file })
            }
            Err((mut file, _)) => {
                let mut pid = String::new();
                file.read_to_string(&mut pid)?;
                bail!(
                    "a cluster is running in {} (process {pid}); stop it with `pilotis down --dir {}`",
                    self.0.display(),
                    self.0.display()
                )
            }
        }
    }

    /// The process that has the cluster open, if one has.
    pub fn running(&self) -> Result<Option<i32>> {
        let Ok(mut file) = OpenOptions::new().read(true).write(true).open(self.lock_file()) else {
            return Ok(None);
        };
        let mut pid = String::new();
        file.read_to_string(&mut pid)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(_free) => Ok(None),
            Err(_) => Ok(Some(pid.trim().parse().context("the lock file names no process")?)),
        }
    }

    /// Waits until nobody has the cluster open.
    pub fn wait_until_free(&self, limit: Duration) -> Result<bool> {
        let until = std::time::Instant::now() + limit;
        while self.running()?.is_some() {
            if std::time::Instant::now() > until {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(true)
    }

    fn lock_file(&self) -> PathBuf {
        self.0.join("lock")
    }

    /// The cluster's own certificate authority, made at its first start.
    pub fn authority(&self) -> Result<Authority> {
        let (certificate, key) = (self.0.join("ca.crt"), self.0.join("ca.key"));
        // The key is written last: if we stop between the two, the next start makes both anew, and nothing was signed yet.
        if let (Ok(certificate), Ok(key)) = (fs::read_to_string(&certificate), fs::read_to_string(&key)) {
            return Ok(Authority::load(&certificate, &key)?);
        }
        let authority = Authority::generate("pilotis")?;
        write_private(&certificate, authority.certificate_pem())?;
        write_private(&key, &authority.key_pem())?;
        Ok(authority)
    }

    /// The key that signs service-account tokens.
    pub fn signing_key(&self) -> Result<String> {
        let path = self.0.join("service-accounts.key");
        if let Ok(key) = fs::read_to_string(&path) {
            return Ok(key);
        }
        let key = generate_signing_key()?;
        write_private(&path, &key)?;
        Ok(key)
    }

    /// Where the API listened last time, so that a kubeconfig handed out stays good.
    pub fn last_address(&self) -> Option<SocketAddr> {
        fs::read_to_string(self.0.join("address")).ok()?.trim().parse().ok()
    }

    pub fn remember_address(&self, address: SocketAddr) -> Result<()> {
        write_private(&self.0.join("address"), &address.to_string())
    }
}

/// Writes a file that only its owner may read, whole or not at all.
pub fn write_private(path: &Path, text: &str) -> Result<()> {
    let new = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    write().with_context(|| format!("{} cannot be written", path.display()))
}
