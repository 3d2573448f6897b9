//! What goes wrong in a plugin, as a value that names the culprit.

use std::fmt;
use std::time::Duration;

use model::Failure;

use crate::{Digest, PluginName};

/// A plugin did not answer. It never takes anything else with it: the instance it happened in is thrown away, the next
/// call gets a new one.
#[derive(Debug, Clone)]
pub struct Fault {
    pub plugin: PluginName,
    /// Absent where it never came to a component.
    pub digest: Option<Digest>,
    pub kind: FaultKind,
    /// The function that was called: `reconcile`, `filter`, `load`.
    pub doing: &'static str,
    /// One sentence for a person.
    pub message: String,
    /// Innermost first, function names as the component's name section has them. Empty where no guest was running.
    pub backtrace: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FaultKind {
    /// The guest stopped itself: a panic, an `unreachable`, an access out of bounds.
    Trap,
    /// Its stack ran out.
    Stack,
    /// It used more processor time than a call may.
    Cpu,
    /// It took longer than a call may, most of it waiting.
    Deadline,
    /// It asked for more memory than it may have.
    Memory,
    /// It spent its host calls or bytes.
    Budget,
    /// Its answer breaks a promise of the world: too long, out of range, malformed.
    Answer,
    /// The component does not export what it is wanted for.
    WrongWorld,
    /// The component imports what is not offered or not granted to it.
    DeniedImport,
    /// It asks for rights beyond its grants.
    Grants,
    /// It is not there, not a component, or one this host cannot compile.
    Load,
    /// It refused its configuration.
    Configure,
    /// Not called: it faulted too often, and the wait is not over.
    Open,
    /// Ours: the host could not make room for it.
    Host,
}

impl FaultKind {
    /// One word, as conditions and metrics spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            FaultKind::Trap => "Trap",
            FaultKind::Stack => "StackOverflow",
            FaultKind::Cpu => "CpuExceeded",
            FaultKind::Deadline => "DeadlineExceeded",
            FaultKind::Memory => "MemoryExceeded",
            FaultKind::Budget => "BudgetExceeded",
            FaultKind::Answer => "BadAnswer",
            FaultKind::WrongWorld => "WrongWorld",
            FaultKind::DeniedImport => "DeniedImport",
            FaultKind::Grants => "MissingGrants",
            FaultKind::Load => "LoadFailed",
            FaultKind::Configure => "ConfigRefused",
            FaultKind::Open => "BreakerOpen",
            FaultKind::Host => "HostOverloaded",
        }
    }

    /// Whether it is held against the plugin. No `_` arm: whoever adds a kind decides.
    pub fn counts(self) -> bool {
        match self {
            FaultKind::Trap
            | FaultKind::Stack
            | FaultKind::Cpu
            | FaultKind::Deadline
            | FaultKind::Memory
            | FaultKind::Budget
            | FaultKind::Answer => true,
            FaultKind::WrongWorld
            | FaultKind::DeniedImport
            | FaultKind::Grants
            | FaultKind::Load
            | FaultKind::Configure
            | FaultKind::Open
            | FaultKind::Host => false,
        }
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "plugin {} ", self.plugin)?;
        if let Some(digest) = &self.digest {
            write!(f, "({}) ", digest.short())?;
        }
        write!(f, "stopped while doing {}: {}: {}", self.doing, self.kind, self.message)
    }
}

impl std::error::Error for Fault {}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        let reason = format!("{}: {}", fault.kind, fault.message);
        Failure::Plugin {
            name: fault.plugin.as_str().to_owned(),
            doing: fault.doing,
            reason,
        }
    }
}

/// Why the host itself stopped a call. Travels through the guest's stack as an error, and becomes a [`Fault`] outside.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Stop {
    #[error("it used {0:?} of processor time, the limit of a call")]
    Cpu(Duration),
    #[error("it made more than {0} host calls, the limit of a call")]
    HostCalls(u32),
    #[error("its host calls moved more than {0} bytes, the limit of a call")]
    Bytes(u64),
}

impl Stop {
    pub(crate) fn kind(&self) -> FaultKind {
        match self {
            Stop::Cpu(_) => FaultKind::Cpu,
            Stop::HostCalls(_) | Stop::Bytes(_) => FaultKind::Budget,
        }
    }
}
