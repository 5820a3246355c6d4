"""The card of a published model: what it is, how to load it, what is known of it."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Sequence
from typing import Any

from fgplugins.methods import get_method
from fgplugins.serving.preprocessing import read_steps

__all__ = ['model_card']

CARD = """---
library_name: timm
pipeline_tag: image-classification
license: unknown
tags:
- image-classification
- timm
- fgplugins
---
# {name}

{summary}

## Use

```python
{imports}
from PIL import Image

model = timm.create_model('local-dir:{name}', pretrained=True).eval()  # or 'hf-hub:owner/{name}'
data = timm.data.resolve_model_data_config(model)
transform = timm.data.create_transform(**data, is_training=False)
with torch.inference_mode():
    scores = model(transform(Image.open('photo.jpg').convert('{mode}'))[None])
p = scores.{activation}
for score, label in zip(*p[0].topk({few})):
    print({label}, float(score))
```

With fgplugins, a folder of photos into a table:
`python tools/predict.py {quoted} photos/ --csv photos.csv`.

## Images

| | |
|---|---|
| size | {height} x {width}, {channels} |
| steps | {steps} |
| mean | {mean} |
| standard deviation | {std} |
{library}
## Classes

{classes}

## Results

{results}

## Licence

Not stated: whoever publishes this model names it here, and in the first lines of this file. The
weights come from the images they were trained on, and from pretrained weights if training started
from such; both may have terms of their own.
"""


def _summary(method: str | None, network: str, composed: bool, count: int | None) -> str:
    """What the model is, in a sentence or three."""
    what = f'`{network}`' if method is None else f'`{method}` on `{network}`'
    text = f'An image classifier: {what}' + (f', {count} classes.' if count else '.')
    if method is None:
        return text
    title = inspect.getdoc(inspect.getmodule(get_method(method))).split('\n\n')[0]
    text += '\n\n' + ' '.join(title.split())
    if not composed:
        text += ' These files hold the plain network, which gives the same scores.'
    return text


def _short(values: Sequence[float]) -> str:
    return ', '.join(f'{v:.6g}' for v in values)


def model_card(
    name: str,
    *,
    method: str | None,
    network: str,
    composed: bool,
    classes: Sequence[str] | None,
    description: dict[str, Any],
    multi_label: bool,
    results: Sequence[tuple[str, str]],
) -> str:
    """The text of a model's README.md.

    Args:
        name: of the folder.
        method: key of the method that it was trained by.
        network: that it stands on.
        composed: the method is part of the model.
        classes: their names.
        description: of the images' preparation.
        multi_label: an image can have several classes.
        results: lines of the table of results.
    """
    height, width = description['size']
    resized = next((s.get('library') for s in description['steps'] if 'library' in s), '')
    known = bool(classes)
    return CARD.format(
        name=name,
        quoted=shlex.quote(name),
        summary=_summary(method, network, composed, len(classes) if classes else None),
        imports='import fgplugins  # registers the model\nimport timm\nimport torch'
        if composed or not network_is_timms(network)
        else 'import timm\nimport torch',
        mode='L' if description['channels'] == 'L' else 'RGB',
        activation='sigmoid()' if multi_label else 'softmax(dim=1)',
        few=min(5, len(classes)) if known else 1,
        label="model.pretrained_cfg['label_names'][label]" if known else 'int(label)',
        height=height,
        width=width,
        channels=description['channels'],
        steps=read_steps(description),
        mean=_short(description['mean']),
        std=_short(description['std']),
        library=''
        if resized != 'OpenCV'
        else '\nTraining resized by OpenCV; timm resizes by Pillow, which smooths when it makes an '
        'image smaller,\nso that scores of a photograph differ a little.\n',
        classes='\n'.join(f'{label}. {c}' for label, c in enumerate(classes))
        if classes
        else 'Their names are not known.',
        results='\n'.join(['| | |', '|---|---|', *(f'| {k} | {v} |' for k, v in results)])
        if results
        else 'None are given.',
    )


def network_is_timms(name: str) -> bool:
    """Whether a network is one that timm has without this package."""
    import timm

    name = name.partition('.')[0]
    return timm.is_model(name) and timm.model_entrypoint(name).__module__.startswith('timm.')
