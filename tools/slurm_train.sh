#!/usr/bin/env bash
# tools/slurm_train.sh PARTITION JOB CONFIG [arguments of tools/train.py]; GPUS, GPUS_PER_NODE, CPUS_PER_TASK
set -eu
partition=$1
job=$2
config=$3
shift 3
gpus=${GPUS:-8}
per_node=${GPUS_PER_NODE:-8}
srun -p "$partition" --job-name "$job" --gres "gpu:$per_node" --ntasks "$gpus" \
    --ntasks-per-node "$per_node" --cpus-per-task "${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 \
    ${SRUN_ARGS:-} \
    python -u "$(dirname "$0")/train.py" "$config" --launcher slurm "$@"
