//! What Linux tells in `/proc` of a machine and of a process. Parsing only: who asks has read the files.

use jiff::Timestamp;

/// Nanoseconds in a tick of these files (`USER_HZ` is 100, whatever the kernel's own clock does).
const TICK: u64 = 1_000_000_000 / 100;

/// A line of `/proc/meminfo` or `/proc/PID/status` that is told in kB: `MemTotal:`. In bytes.
pub(crate) fn bytes(file: &str, key: &str) -> Option<u64> {
    let line = file.lines().find_map(|line| line.strip_prefix(key))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

/// Of `/proc/stat`: nanoseconds that all processors together were not idle since the start.
pub(crate) fn busy(stat: &str) -> Option<u64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = line.split_whitespace().map_while(|word| word.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq, steal; what guests used is in user and nice already.
    let [user, nice, system, _, _, irq, softirq, steal, ..] = ticks[..] else {
        return None;
    };
    Some((user + nice + system + irq + softirq + steal) * TICK)
}

/// Of `/proc/stat`: when the machine was started.
pub(crate) fn booted(stat: &str) -> Option<Timestamp> {
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    Timestamp::from_second(line.trim().parse().ok()?).ok()
}

/// Of `/proc/PID/stat`: nanoseconds of processor time of all threads.
pub(crate) fn used(stat: &str) -> Option<u64> {
    // A program may have put spaces and brackets into its name, which stands before the last bracket.
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some((ticks(11)? + ticks(12)?) * TICK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machines_figures_are_read() {
        let stat = "cpu  100 20 30 4000 500 6 7 8 90 0\ncpu0 100 20 30 4000 500 6 7 8 90 0\nbtime 1700000000\n";
        assert_eq!(busy(stat), Some(171 * 10_000_000));
        assert_eq!(booted(stat).unwrap().as_second(), 1_700_000_000);
        assert_eq!((busy("cpu  1 2\n"), booted("btime x\n")), (None, None));
        let meminfo = "MemTotal:       24576 kB\nMemFree:          1 kB\n";
        assert_eq!(bytes(meminfo, "MemTotal:"), Some(24576 * 1024));
        assert_eq!(bytes(meminfo, "MemAvailable:"), None);
    }

    #[test]
    fn a_processs_name_does_not_disturb() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 4 0 9 0 0";
        assert_eq!(used(stat), Some(3_000_000_000));
        assert_eq!(used("7 (a) S 1"), None);
    }

    #[test]
    fn our_own_files_have_these_lines() {
        let read = |path: &str| std::fs::read_to_string(path).unwrap();
        assert!(busy(&read("/proc/stat")).is_some_and(|nanos| nanos > 0));
        assert!(booted(&read("/proc/stat")).is_some_and(|at| at < Timestamp::now()));
        assert!(bytes(&read("/proc/meminfo"), "MemAvailable:").is_some_and(|bytes| bytes > 0));
        assert!(bytes(&read("/proc/self/status"), "RssAnon:").is_some_and(|bytes| bytes > 0));
        assert!(used(&read("/proc/self/stat")).is_some());
    }
}
