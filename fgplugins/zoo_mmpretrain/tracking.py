"""mmengine's back ends of tracking services, with pictures at the step that they are of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from mmengine.visualization import MLflowVisBackend, WandbVisBackend

from fgplugins.zoo_mmpretrain.registry import VISBACKENDS, register

__all__ = ['MLflowBackend', 'WandbBackend']


class WandbBackend(WandbVisBackend):
    """Weights & Biases; a picture's step stands beside it, as ``attention_maps/step``."""

    def add_image(self, name: str, image: np.ndarray, step: int = 0, **_: object) -> None:
        wandb = self.experiment
        wandb.log({name: wandb.Image(image), f'{name}/step': step})


class MLflowBackend(MLflowVisBackend):
    """MLflow, in a database beside the log if no server is named.

    Pictures of one name are a series; mmengine's would be files without a suffix, which MLflow
    refuses, as it does mmengine's folder of files in the place of a database.
    """

    def _init_env(self) -> None:
        if self._tracking_uri is None:
            folder = Path(self._save_dir).resolve()
            self._tracking_uri = f'sqlite:///{(folder / "mlflow.db").as_posix()}'
            self._artifact_location = (folder / 'mlartifacts').as_uri()
            self._artifact_suffix = ()  # log and config lie beside it
        super()._init_env()

    def add_image(self, name: str, image: np.ndarray, step: int = 0, **_: object) -> None:
        self.experiment.log_image(image, key=name, step=step)


register(VISBACKENDS, WandbBackend)
register(VISBACKENDS, MLflowBackend)
