//! What a person reads: one line per round as it ends, and a table of all of them.

use std::io::Write as _;

use crate::campaign::Campaign;
use crate::kit::KitRound;
use crate::round::Round;

/// Prints a line.
pub(crate) fn say(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()?;
    Ok(())
}

pub(crate) fn round(round: &Round) -> anyhow::Result<()> {
    let (tally, disk) = (&round.tally, &round.on_disk);
    let first_old = round
        .first_old_run_ms
        .map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms"));
    say(&format!(
        "{:<8} {:<7} #{:<2} {:<8} after {:>4} ms: {:>5} accepted, {:>4} open, {:>3} left; ready {} ms, first old run {first_old}, \
         done {:.1} s; lost {}, doubled {}, unknown {}, repeats {}, redelivered {} … {}",
        round.database,
        round.mode.name(),
        round.number + 1,
        round.blow.name(),
        round.load_ms,
        tally.accepted,
        disk.open_at_kill,
        disk.left_uncommitted,
        round.ready_ms,
        round.drain_ms as f64 / 1e3,
        tally.lost - tally.lost_but_reported,
        tally.doubled,
        tally.unknown,
        tally.repeats,
        tally.redelivered,
        verdict(&round.violations),
    ))?;
    for example in &tally.examples {
        say(&format!("           {example}"))?;
    }
    Ok(())
}

pub(crate) fn kit_round(round: &KitRound) -> anyhow::Result<()> {
    let field = |name: &str| round.result.get(name).cloned().unwrap_or_default();
    say(&format!(
        "{:<8} kit     #{:<2} weir     after {:>4} ms: {:>5} accepted; lost {}, doubled {}, repeats {} … {}",
        round.database,
        round.number + 1,
        round.exec_at_ms,
        field("accepted"),
        field("lost"),
        field("dup_ids"),
        field("keyed_repeats"),
        verdict(&round.violations),
    ))
}

fn verdict(violations: &[String]) -> String {
    match violations {
        [] => "ok".to_owned(),
        violations => format!("VIOLATED: {}", violations.join("; ")),
    }
}

/// The table at the end.
pub(crate) fn table(campaigns: &[Campaign], kit: &[KitRound]) -> anyhow::Result<()> {
    say("")?;
    say(
        "database mode    rounds accepted open@kill left lost doubled unknown (never seen) repeats first old run, worst",
    )?;
    for campaign in campaigns {
        let sum = |of: fn(&Round) -> usize| campaign.rounds.iter().map(of).sum::<usize>();
        let repeats: u64 = campaign.rounds.iter().map(|round| round.tally.repeats).sum();
        let worst = campaign.rounds.iter().filter_map(|round| round.first_old_run_ms).max();
        say(&format!(
            "{:<8} {:<7} {:>6} {:>8} {:>9} {:>4} {:>4} {:>7} {:>7} {:>12} {:>7} {:>16} ms  {}",
            campaign.database,
            campaign.mode.name(),
            campaign.rounds.len(),
            sum(|round| round.tally.accepted),
            sum(|round| round.on_disk.open_at_kill),
            sum(|round| round.on_disk.left_uncommitted),
            sum(|round| round.tally.lost - round.tally.lost_but_reported),
            sum(|round| round.tally.doubled),
            sum(|round| round.tally.unknown),
            sum(|round| round.tally.unknown_never_seen),
            repeats,
            worst.map_or_else(|| "-".to_owned(), |ms| ms.to_string()),
            if campaign.violated() { "VIOLATED" } else { "ok" },
        ))?;
        if !campaign.deeds.is_empty() {
            let deeds = campaign.deeds.iter().map(|(deed, count)| format!("{deed} {count}"));
            say(&format!("         people: {}", deeds.collect::<Vec<_>>().join(", ")))?;
        }
        for violation in &campaign.violations {
            say(&format!("         {violation}"))?;
        }
    }
    for database in ["sqlite", "postgres"] {
        let rounds: Vec<_> = kit.iter().filter(|round| round.database == database).collect();
        if rounds.is_empty() {
            continue;
        }
        let sum = |name: &str| -> u64 {
            let field = |round: &&KitRound| round.result.get(name).and_then(serde_json::Value::as_u64);
            rounds.iter().filter_map(field).sum()
        };
        let violated = rounds.iter().any(|round| !round.violations.is_empty());
        say(&format!(
            "{database:<8} kit     {:>6} {:>8} lost {} doubled {} repeats {}  {}",
            rounds.len(),
            sum("accepted"),
            sum("lost"),
            sum("dup_ids"),
            sum("keyed_repeats"),
            if violated { "VIOLATED" } else { "ok" },
        ))?;
    }
    Ok(())
}
