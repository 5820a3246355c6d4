"""Running a config: what `tools/train.py` and `tools/test.py` do, step by step.

`configs` reads a config, with `overrides`, `inheritance` and `settings`. `launching` sets up the
processes. `resuming` and `initial_weights` settle what a training starts from. `data` and `models`
try both before anything is written. `training` runs, in the `work_folder`. `checkpoints` and
`saved_settings` read checkpoint files as data, `errors` puts errors on one line, and `reporting`
prints numbers. `options` sets length, batches, rate, averages, workers and device, `schedule`
stretches what is counted in epochs, `choosing` is by validation images, `tracking` by services.
`terminal` and `progress` are what is shown of a run, `results` what a test writes.
"""
