#!/usr/bin/env bash
# shellcheck disable=SC2016  # What stands in single quotes is for the hosts' shells.
set -euo pipefail

usage() {
  cat <<'TEXT'
Runs clp-jax on a Cloud TPU VM, on all its hosts, with the gcloud command line tool.

  scripts/tpu_vm.sh create  NAME   make the VM
  scripts/tpu_vm.sh install NAME   copy the last commit of this checkout there, install it and check the VM
  scripts/tpu_vm.sh doctor  NAME   check all hosts at once: devices, versions, disks, access
  scripts/tpu_vm.sh run     NAME -- STAGE ...
                                   start `clp-jax STAGE ...` in the background on every host
  scripts/tpu_vm.sh follow  NAME   show the log as it grows (Ctrl-C leaves the run alone)
  scripts/tpu_vm.sh status  NAME   say whether the VM is up and the run is going on
  scripts/tpu_vm.sh delete  NAME   delete the VM with all that is on it
  scripts/tpu_vm.sh launch  NAME -- STAGE ...
                                   all of it: queue for a VM, install, run, begin again with
                                   --resume when the VM is taken away, copy the results, delete

Options, each also an environment variable:
  NAME              TPU_NAME
  --zone ZONE       TPU_ZONE      default: the zone gcloud is set to
  --project ID      TPU_PROJECT   default: the project gcloud is set to
  --type TYPE       TPU_TYPE      default: v5litepod-8
  --version NAME    TPU_VERSION   runtime version, default: v2-alpha-tpuv5-lite
  --spot                          create, launch: cheaper, can be taken away at any time
  --copy PLACE      TPU_COPY      launch: a folder on the VM, relative to ~/clp_jax, or gs://...
                                  to copy to this machine at the end, into --to
  --to FOLDER       TPU_TO        default: this folder
  --poll SECONDS    TPU_POLL      launch: how often it looks, default: 30
  --worker N                      follow: the host whose log is shown, default: 0
  --yes                           delete: do not ask
  --dry-run                       print the commands, run none

If HF_TOKEN is set, `install` puts it into a file on the hosts that only you can read; it appears
in no command line and in no log. With more than one host, corpora must lie on storage that all
hosts share, and so must the run folder unless it is in a bucket: --train.out gs://BUCKET/NAME.

Example:
  export TPU_NAME=german TPU_ZONE=us-west4-a
  scripts/tpu_vm.sh create --spot && scripts/tpu_vm.sh install
  scripts/tpu_vm.sh run -- train --config configs/bloom-1b5-clp-german.yaml
  scripts/tpu_vm.sh follow

  scripts/tpu_vm.sh launch --spot --copy gs://BUCKET/german --to runs -- \
    train --config configs/bloom-1b5-clp-german.yaml --train.out gs://BUCKET/german
TEXT
}

fail() {
  echo "$1" >&2
  exit 1
}

# Print a command so that it can be pasted into a shell, and run it unless this is a dry run.
perform() {
  printf '%q ' "$@"
  echo
  if [[ $dry_run == no ]]; then
    "$@"
  fi
}

tpus() {
  local words=(gcloud compute tpus "$@")
  [[ -z $zone ]] || words+=(--zone="$zone")
  [[ -z $project ]] || words+=(--project="$project")
  perform "${words[@]}"
}

tpu() {
  tpus tpu-vm "$@"
}

on_hosts() {
  tpu ssh "$name" --worker="$1" --command="$2"
}

create() {
  local words=(create "$name" --accelerator-type="$type" --version="$version")
  [[ $spot == no ]] || words+=(--spot)
  tpu "${words[@]}"
}

# The images bring an older Python than 3.11, so uv brings its own.
install() {
  stage="${TMPDIR:-/tmp}/clp_jax.tpu_vm"
  if [[ $dry_run == no ]]; then
    stage="$(mktemp -d)"
    trap 'rm -rf "$stage"' EXIT
    git -C "$root" diff --quiet HEAD || echo "Uncommitted changes are not copied." >&2
  fi
  perform git -C "$root" archive --format=tar.gz --output="$stage/clp_jax.tar.gz" HEAD
  tpu scp "$stage/clp_jax.tar.gz" "$name:" --worker=all
  on_hosts all 'set -e
mkdir -p clp_jax .cache/huggingface
tar -xzf clp_jax.tar.gz -C clp_jax
cd clp_jax
PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install --quiet --user uv
python3 -m uv venv --quiet --allow-existing --python 3.12 .venv
python3 -m uv pip install --quiet --constraint constraints.txt --editable ".[tpu,gcs]"'
  if [[ -n ${HF_TOKEN:-} ]]; then
    if [[ $dry_run == no ]]; then
      (umask 077 && printf '%s' "$HF_TOKEN" >"$stage/token")
    fi
    on_hosts all 'umask 077 && : >.cache/huggingface/token && chmod 600 .cache/huggingface/token'
    tpu scp "$stage/token" "$name:.cache/huggingface/token" --worker=all
  fi
  doctor
}

doctor() {
  on_hosts all 'cd clp_jax && CLP_JAX_DISTRIBUTED=1 JAX_PLATFORMS=tpu,cpu .venv/bin/clp-jax doctor'
}

# The run is a session of its own without a terminal, so it outlives the connection.
run() {
  local arguments
  (($#)) || fail "Say what to run: scripts/tpu_vm.sh run NAME -- train --config FILE"
  arguments="$(printf ' %q' "$@")"
  on_hosts all "set -e
cd clp_jax
if kill -0 \"\$(cat run.pid 2>/dev/null)\" 2>/dev/null; then
  echo 'A run is going on already: wait for it, or delete the VM.' >&2
  exit 1
fi
rm -f run.exit
setsid nohup bash -c 'CLP_JAX_DISTRIBUTED=1 .venv/bin/clp-jax \"\$@\"; echo \$? >run.exit' clp-jax$arguments \\
  >run.log 2>&1 </dev/null &
echo \$! >run.pid"
}

follow() {
  on_hosts "$worker" 'tail -n 50 -F clp_jax/run.log'
}

status() {
  tpu describe "$name" --format='value(state,health)'
  on_hosts all 'cd clp_jax
if [ -f run.exit ]; then echo "$(hostname): ended with exit code $(cat run.exit)"
elif kill -0 "$(cat run.pid 2>/dev/null)" 2>/dev/null; then echo "$(hostname): running"
else echo "$(hostname): no run"; fi'
}

delete() {
  local answer
  if [[ $yes == no && $dry_run == no ]]; then
    read -r -p "Delete $name with everything on it? Type its name: " answer || true
    [[ $answer == "$name" ]] || fail "Nothing was deleted."
  fi
  tpu delete "$name" --quiet
}

queue() {
  local words=(create "$name" --node-id="$name" --accelerator-type="$type" --runtime-version="$version")
  [[ $spot == no ]] || words+=(--spot)
  tpus queued-resources "${words[@]}"
}

unqueue() {
  tpus queued-resources delete "$name" --force --quiet
}

state() {
  tpus queued-resources describe "$name" --format='value(state.state)' | tail -n 1
}

# Ends when the run has: what a VM that is taken away has saved, the next one continues.
launch() {
  (($#)) || fail "Say what to run: scripts/tpu_vm.sh launch NAME -- train --config FILE"
  [[ -n $copy || $* == *gs://* ]] \
    || fail "The VM is deleted at the end: say what to --copy, or give --train.out gs://BUCKET/NAME."
  [[ " $* " == *" --resume "* ]] || set -- "$@" --resume
  queue
  if [[ $dry_run == yes ]]; then
    install
    run "$@"
    status
  else
    export TPU_NAME="$name" TPU_ZONE="$zone" TPU_PROJECT="$project"
    until attempt "$@"; do
      echo "$name was taken away: it is queued again." >&2
      unqueue
      queue
    done
  fi
  copy_results
  unqueue
}

# True when the run has ended well, false when the VM was taken away.
attempt() {
  local script="$root/scripts/tpu_vm.sh" now
  until now="$(state)" && [[ $now == ACTIVE ]]; do
    case "$now" in
      SUSPENDING | SUSPENDED) return 1 ;;
      FAILED) fail "The request for $name has failed: \`gcloud compute tpus queued-resources describe\` says why." ;;
    esac
    sleep "$poll"
  done
  if ! { "$script" install && "$script" run -- "$@"; }; then
    sleep "$poll"
    ! taken_away || return 1
    fail "$name could not be set up, see above: fix it, or delete it with \`gcloud compute tpus queued-resources delete\`."
  fi
  until taken_away; do
    sleep "$poll"
    case "$(on_hosts 0 "$ended" | tail -n 1)" in
      finished) return 0 ;;
      interrupted) "$script" run -- "$@" || true ;;
      failed) fail "The run has failed: look at \`scripts/tpu_vm.sh follow $name\`; the VM stays." ;;
    esac
  done
  return 1
}

# A question that gets no answer is no sign of it.
taken_away() {
  [[ $(state) =~ ^(SUSPENDING|SUSPENDED)$ ]]
}

# A run that is asked to stop saves, says how to resume it, and ends with 0; 75 says: try again.
ended='cd clp_jax && case "$(cat run.exit 2>/dev/null)" in
  "") echo running ;;
  0) if tail -n 3 run.log | grep -q "Resume with: "; then echo interrupted; else echo finished; fi ;;
  75) echo interrupted ;;
  *) echo failed ;;
esac'

copy_results() {
  case "$copy" in
    "") ;;
    gs://*) perform gcloud storage cp --recursive "$copy" "$to" ;;
    *) tpu scp --recurse "$name:clp_jax/$copy" "$to" --worker=0 ;;
  esac
}

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
name="${TPU_NAME:-}"
type="${TPU_TYPE:-v5litepod-8}"
version="${TPU_VERSION:-v2-alpha-tpuv5-lite}"
zone="${TPU_ZONE:-}"
project="${TPU_PROJECT:-}"
worker=0
copy="${TPU_COPY:-}"
to="${TPU_TO:-.}"
poll="${TPU_POLL:-30}"
spot=no
dry_run=no
yes=no

command="${1:-help}"
shift || true
case "$command" in
  create | install | doctor | run | follow | status | delete | launch) ;;
  help | -h | --help) usage && exit ;;
  *) fail "$command is not a command; see scripts/tpu_vm.sh --help." ;;
esac

while (($#)); do
  case "$1" in
    --) shift && break ;;
    --spot) spot=yes ;;
    --yes) yes=yes ;;
    --dry-run) dry_run=yes ;;
    -h | --help) usage && exit ;;
    --zone | --project | --type | --version | --worker | --copy | --to | --poll)
      [[ -n ${2:-} ]] || fail "$1 needs a value."
      printf -v "${1#--}" '%s' "$2"
      shift
      ;;
    -*) fail "$1 is not an option; see scripts/tpu_vm.sh --help." ;;
    *) name="$1" ;;
  esac
  shift
done

[[ -n $name ]] || fail "Name the TPU VM: scripts/tpu_vm.sh $command NAME, or set TPU_NAME."
# What gcloud takes for an option, or a host's shell for a command, is none of these.
for key in name zone project type version worker copy poll; do
  [[ -z ${!key} || ${!key} =~ ^[[:alnum:]][[:alnum:]._:,@/-]*$ ]] \
    || fail "$(printf '%q is no value for --%s: letters, digits and . _ : , @ / - only.' "${!key}" "$key")"
done
[[ $to != -* ]] || fail "$(printf '%q is no value for --to: name a folder.' "$to")"
if [[ $dry_run == no ]]; then
  command -v gcloud >/dev/null || fail "gcloud is missing: install the Google Cloud CLI first."
fi

"$command" "$@"
