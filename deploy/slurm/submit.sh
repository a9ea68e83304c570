#!/bin/sh
# Submit scheduler, workers and the run, and end workers and scheduler when the run has ended:
#   IO=4 GPUS=2 deploy/slurm/submit.sh my-fields.geojson --year 2024 --store /shared/cubes/my-fields-2024 --device cuda
set -eu
here=$(cd "$(dirname "$0")" && pwd)
DEPLOY=$(dirname "$here")
RUN=${RUN:-$PWD/marstfn-$(date +%Y%m%dT%H%M%S)}
mkdir -p "$RUN"
export RUN DEPLOY
submit() { sbatch --parsable --chdir "$RUN" --export=ALL "$@"; }
scheduler=$(submit "$here/scheduler.sbatch")
io=$(submit --dependency "after:$scheduler" --array "0-$((${IO:-4} - 1))" "$here/io.sbatch")
gpu=$(submit --dependency "after:$scheduler" --array "0-$((${GPUS:-2} - 1))" "$here/gpu.sbatch")
# relative paths mean what they meant here
run=$(submit --dependency "after:$scheduler" --chdir "$PWD" --output "$RUN/run-%j.log" "$here/run.sbatch" "$@")
submit --dependency "afterany:$run" --job-name marstfn-end --mem 100M --time 00:05:00 --output end-%j.log \
    --wrap "scancel $scheduler $io $gpu" >/dev/null
echo "run $run, scheduler $scheduler, io $io, gpu $gpu; logs in $RUN"
