# shellcheck shell=bash
# Sourced. Named, timed steps with a summary at the end.
# A failed step does not stop the script: one run shows everything that is wrong.

STEP_NAMES=()
STEP_RESULTS=()
STEP_SECONDS=()

say() { printf "%s\n" "$@"; }

# die MESSAGE...: one line per argument on stderr, then exit 1.
die() {
  printf 'error: %s\n' "$1" >&2
  shift
  [ $# -eq 0 ] || printf '       %s\n' "$@" >&2
  exit 1
}

# step NAME COMMAND [ARGUMENT...]
step() {
  local name=$1 began=$SECONDS result=ok
  shift
  say "" "==> $name"
  "$@" || result=FAILED
  step_record "$name" "$result" $((SECONDS - began))
  say "    $name: $result, $((SECONDS - began)) s, $(disk_free) free"
}

# Free space where the build lies: a full disk shows up as a linker's error, far from its cause.
disk_free() { df -Ph . | awk 'NR == 2 { print $4 }'; }

step_record() {
  STEP_NAMES+=("$1")
  STEP_RESULTS+=("$2")
  STEP_SECONDS+=("$3")
}

# Prints all steps; returns 1 if one failed.
steps_summary() {
  local i failed=0
  say "" "Summary"
  for i in "${!STEP_NAMES[@]}"; do
    printf '  %-34s %-7s %4d s\n' "${STEP_NAMES[$i]}" "${STEP_RESULTS[$i]}" "${STEP_SECONDS[$i]}"
    [ "${STEP_RESULTS[$i]}" = ok ] || failed=1
  done
  printf '  %-34s %-7s %4d s\n' total "$([ $failed = 0 ] && echo ok || echo FAILED)" "$SECONDS"
  return $failed
}
