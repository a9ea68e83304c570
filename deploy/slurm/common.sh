# shellcheck shell=sh
# Read by all jobs of a run: where things are, and Dask's certificates. Edit the first block; the folder RUN, on a file
# system that all nodes share, is made by submit.sh.
VENV=${VENV:-$HOME/marstfn/.venv}                     # `make install`; on the GPU nodes with a CUDA build of torch
DEPLOY=${DEPLOY:-$HOME/marstfn/deploy}
CERTIFICATES=${CERTIFICATES:-$DEPLOY/certificates}    # deploy/secrets.sh
PORT=${PORT:-8786}

: "${RUN:?the folder of this run; submit.sh sets it}"
SCHEDULER_FILE=$RUN/scheduler.json
PATH=$VENV/bin:$PATH
DASK_CONFIG=$DEPLOY                                   # dask.yaml: encryption required, no stealing, no spilling
DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION=true
DASK_DISTRIBUTED__COMM__TLS__CA_FILE=$CERTIFICATES/ca.pem
DASK_DISTRIBUTED__COMM__TLS__SCHEDULER__CERT=$CERTIFICATES/scheduler.pem
DASK_DISTRIBUTED__COMM__TLS__SCHEDULER__KEY=$CERTIFICATES/scheduler-key.pem
DASK_DISTRIBUTED__COMM__TLS__WORKER__CERT=$CERTIFICATES/worker.pem
DASK_DISTRIBUTED__COMM__TLS__WORKER__KEY=$CERTIFICATES/worker-key.pem
DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT=$CERTIFICATES/client.pem
DASK_DISTRIBUTED__COMM__TLS__CLIENT__KEY=$CERTIFICATES/client-key.pem
MALLOC_ARENA_MAX=2
GDAL_CACHEMAX=64
OMP_WAIT_POLICY=passive
GOMP_SPINCOUNT=3000
export PATH DASK_CONFIG MALLOC_ARENA_MAX GDAL_CACHEMAX OMP_WAIT_POLICY GOMP_SPINCOUNT
export DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION DASK_DISTRIBUTED__COMM__TLS__CA_FILE
export DASK_DISTRIBUTED__COMM__TLS__SCHEDULER__CERT DASK_DISTRIBUTED__COMM__TLS__SCHEDULER__KEY
export DASK_DISTRIBUTED__COMM__TLS__WORKER__CERT DASK_DISTRIBUTED__COMM__TLS__WORKER__KEY
export DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT DASK_DISTRIBUTED__COMM__TLS__CLIENT__KEY

# The scheduler's address, once it has told it: ten minutes are given to it
address() {
    tries=300
    until [ -s "$SCHEDULER_FILE" ]; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || { echo "no scheduler told its address in $SCHEDULER_FILE" >&2; return 1; }
        sleep 2
    done
    python -c 'import json, sys; print(json.load(open(sys.argv[1]))["address"])' "$SCHEDULER_FILE"
}
