#!/usr/bin/env bash
# tools/dist_train.sh CONFIG PROCESSES [arguments of tools/train.py]: GPUs over NCCL, else CPUs over gloo
set -eu
config=$1
processes=$2
shift 2
torchrun --nnodes "${NNODES:-1}" --node-rank "${NODE_RANK:-0}" --nproc-per-node "$processes" \
    --master-addr "${MASTER_ADDR:-127.0.0.1}" --master-port "${PORT:-29500}" \
    "$(dirname "$0")/train.py" "$config" --launcher pytorch "$@"
