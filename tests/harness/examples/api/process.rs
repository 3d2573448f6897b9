//! What a process on this machine costs, as the kernel counts it.

use std::fs;
use std::time::Duration;

/// The server's process, where it is known.
#[derive(Clone, Copy)]
pub struct Process(pub Option<u32>);

/// The kernel counts processor time in hundredths of a second (`USER_HZ`).
const TICK: Duration = Duration::from_millis(10);

impl Process {
    /// Processor time so far, of all threads.
    pub fn cpu(self) -> Option<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0?)).ok()?;
        // The name may hold anything; what follows its closing bracket is numbers: the state is the third field.
        let (_, fields) = stat.rsplit_once(") ")?;
        let mut fields = fields.split(' ').skip(11);
        let mut ticks = || fields.next()?.parse::<u32>().ok();
        Some(TICK * (ticks()? + ticks()?))
    }

    /// From now on [`Process::peak`] is that of what follows. Says how much is resident now, in megabytes.
    pub fn forget_peak(self) -> Option<f64> {
        fs::write(format!("/proc/{}/clear_refs", self.0?), "5").ok()?;
        self.status("VmRSS:")
    }

    /// The most that was resident, in megabytes.
    pub fn peak(self) -> Option<f64> {
        self.status("VmHWM:")
    }

    fn status(self, name: &str) -> Option<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0?)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kilobytes: f64 = line.split_whitespace().next()?.parse().ok()?;
        Some(kilobytes / 1024.0)
    }
}
