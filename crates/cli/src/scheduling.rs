//! How the system's scheduler treats a server: as work to be got through, not as something that answers keys.
//!
//! A flow goes through several threads: the one that reads requests, the one that drives runs, the writer. When a core
//! is busy, the ordinary policy of Linux lets each thread that is woken interrupt the one that woke it, so work that
//! could share a commit or a read of a socket is cut into pieces. `SCHED_BATCH` lets a thread finish first. Nothing
//! changes while a core is free. What else is busy on the machine, a database above all, comes before the server.

use std::io;

#[cfg(target_os = "linux")]
use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy, thread_native_id,
    thread_schedule_policy,
};

/// Gives this thread, and all that it starts from now on, the policy for batches; `false`: whoever started the process
/// has chosen a policy or a niceness, which stands.
///
/// # Errors
/// The system refuses it, as some sandboxes do. The server works as before, with fewer flows on a busy core.
#[cfg(target_os = "linux")]
pub(crate) fn as_batch() -> io::Result<bool> {
    let ordinary = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Other);
    let batch = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Batch);
    let policy = thread_schedule_policy().map_err(|error| io::Error::other(error.to_string()))?;
    if policy != ordinary || rustix::process::getpriority_process(None)? != 0 {
        return Ok(false);
    }
    // The library sets a niceness together with the policy, on a scale of its own: the value that stands for 0.
    let unchanged = (0..=u8::MAX)
        .map_while(|value| ThreadPriority::try_from(value).ok())
        .find(|priority| priority.to_posix(batch).is_ok_and(|niceness| niceness == 0))
        .ok_or_else(|| io::Error::other("no priority stands for a niceness of 0"))?;
    set_thread_priority_and_policy(thread_native_id(), unchanged, batch)
        .map(|()| true)
        .map_err(|error| io::Error::other(error.to_string()))
}

/// Only Linux has such a policy.
///
/// # Errors
/// None.
#[cfg(not(target_os = "linux"))]
pub(crate) fn as_batch() -> io::Result<bool> {
    Ok(false)
}
