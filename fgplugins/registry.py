"""Where mmengine looks for the scope ``fgplugins``, as in ``type='fgplugins.WARNHead'``."""

import fgplugins.zoo_mmpretrain  # noqa: F401  (registers all that has the scope)
