"""Running a config: what `tools/train.py` and `tools/test.py` do, step by step.

`configs` reads a config, with `overrides`, `inheritance` and `settings`. `launching` sets up the
processes. `resuming` and `initial_weights` settle what a training starts from. `data` and `models`
try both before anything is written. `training` runs, in the `work_folder`. `checkpoints` and
`saved_settings` read checkpoint files as data, `errors` puts errors on one line, and `reporting`
prints numbers.
"""
