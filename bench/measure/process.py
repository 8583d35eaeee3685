"""CPU and memory of process trees, from /proc (Linux)."""

import os
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def _stats():
    """Process id → (parent, CPU seconds, ended children included)."""
    stats = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rsplit(") ", 1)[1].split()
            except OSError:
                continue
            stats[int(folder.name)] = int(fields[1]), sum(map(int, fields[11:15])) / TICKS_PER_S
    return stats


def _tree(root, stats):
    children = {}
    for pid, (parent, _) in stats.items():
        children.setdefault(parent, []).append(pid)
    found, open_ids = [], [root]
    while open_ids:
        pid = open_ids.pop()
        found.append(pid)
        open_ids += children.get(pid, [])
    return found


def cpu_s(*roots):
    stats = _stats()
    return sum(stats[pid][1] for root in roots for pid in _tree(root, stats) if pid in stats)


def rss_mb(root):
    total_kb = 0
    for pid in _tree(root, _stats()):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Rss:"):
                total_kb += int(line.split()[1])
    return total_kb / 1024
