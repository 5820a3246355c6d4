"""Running a config: its settings, data, checkpoints and folder, and how it is launched."""
