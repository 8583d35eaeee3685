//! Memory and CPU of process trees, read from `/proc` (Linux).

use std::collections::HashMap;
use std::fs;
use std::path::Path;

/// Clock ticks per second in `/proc/PID/stat`: 100 on every architecture that Linux exports it for.
const TICKS_PER_S: f64 = 100.0;

/// Sums over a process and all its descendants.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    pub rss_mb: f64,
    /// Proportional set size: pages shared between processes count once.
    pub pss_mb: f64,
    pub cpu_s: f64,
}

/// The id in the first line of `file`.
pub(crate) fn read_pid(file: &Path) -> Option<u32> {
    fs::read_to_string(file).ok()?.lines().next()?.trim().parse().ok()
}

/// Usage of the tree under the process named in `pid_file`; `None` when there is no such process.
pub(crate) fn tree_usage(pid_file: Option<&Path>) -> Option<Usage> {
    let root = read_pid(pid_file?)?;
    stat(root)?;
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if let Some(stat) = stat(pid) {
            children.entry(stat.parent).or_default().push(pid);
        }
    }
    let mut usage = Usage::default();
    let mut open = vec![root];
    while let Some(pid) = open.pop() {
        open.extend(children.remove(&pid).unwrap_or_default());
        usage.cpu_s += stat(pid).map_or(0.0, |stat| stat.cpu_s);
        let (rss_mb, pss_mb) = memory(pid);
        usage.rss_mb += rss_mb;
        usage.pss_mb += pss_mb;
    }
    Some(usage)
}

/// CPU seconds of this process so far.
pub(crate) fn own_cpu_s() -> f64 {
    stat(std::process::id()).map_or(0.0, |stat| stat.cpu_s)
}

struct Stat {
    parent: u32,
    cpu_s: f64,
}

/// Source: `proc_pid_stat(5)`. The command in parentheses may hold spaces, so fields count from its end.
fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(") ")?;
    let field = |index| fields.split(' ').nth(index);
    let ticks = |index| field(index)?.parse::<f64>().ok();
    Some(Stat {
        parent: field(1)?.parse().ok()?,
        cpu_s: (ticks(11)? + ticks(12)?) / TICKS_PER_S,
    })
}

fn memory(pid: u32) -> (f64, f64) {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let megabytes = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let kilobytes = line
            .and_then(|line| line.split_whitespace().next())
            .and_then(|kb| kb.parse::<f64>().ok());
        kilobytes.unwrap_or(0.0) / 1024.0
    };
    (megabytes("Rss:"), megabytes("Pss:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_memory() {
        let file = std::env::temp_dir().join(format!("weir-load-{}.pid", std::process::id()));
        fs::write(&file, format!("{}\nmore\n", std::process::id())).unwrap();
        let usage = tree_usage(Some(&file)).unwrap();
        fs::remove_file(&file).unwrap();
        assert!(
            usage.rss_mb > 1.0 && usage.pss_mb > 0.5 && usage.pss_mb <= usage.rss_mb,
            "{usage:?}"
        );
        assert!(tree_usage(None).is_none());
    }
}
