#!/bin/sh
# Once for a Prefect server: work pool, the three deployments, the automation that finds dead runs. Again does no harm.
# Wants PREFECT_API_URL and PREFECT_API_AUTH_STRING. Runs start in /data (or the folder given).
set -eu
here=$(dirname "$0")
PWD=${1:-/data}
export PWD
prefect work-pool inspect marstfn >/dev/null 2>&1 || prefect work-pool create marstfn --type process
prefect --no-prompt deploy --all --prefect-file "$here/prefect.yaml"
dead_runs=$(python -c 'import importlib.resources; print(importlib.resources.files("flows") / "dead_runs.json")')
name='marstfn: a run without heartbeat has crashed'
# `inspect` ends well also where there is none of that name: what it prints tells
prefect automation inspect "$name" 2>/dev/null | grep -q heartbeat || prefect automation create --from-file "$dead_runs"
