"""The demo's page: an image goes in, and every model has a column."""

from __future__ import annotations

import html
from collections.abc import Sequence
from functools import partial

import gradio as gr

from fgplugins.demo.looking import Look, Trained, look
from fgplugins.utils.lettering import shortened

__all__ = ['build_page']

OWN = -1  # in a choice of classes: what the method shows by itself
# one image at a time: the models are shared by all who look at the page
ONE_AT_A_TIME = {'concurrency_limit': 1, 'concurrency_id': 'models', 'api_visibility': 'private'}


def build_page(models: Sequence[Trained], top_k: int) -> gr.Blocks:
    """The page of some models, side by side.

    Args:
        models: at least one.
        top_k: how many classes each names.
    """
    with gr.Blocks(title='fgplugins demo', analytics_enabled=False, fill_width=True) as page:
        # as a file, so that the models read the very bytes that were dropped
        file = gr.File(label='drop an image', elem_id='image', height=120)
        choices, columns = [], []
        with gr.Row():
            for number, trained in enumerate(models):
                with gr.Column(min_width=280, elem_id=f'model-{number}'):
                    choice, column = _column(trained, top_k)
                choices.append(choice)
                columns.append(column)

        def show_all(path: str | None, *asked: int) -> list[object]:
            found = []
            for trained, one in zip(models, asked, strict=True):
                found += _outputs(trained, top_k, path, one)
            return found

        flat = [output for column in columns for output in column]
        file.change(show_all, [file, *choices], flat, **ONE_AT_A_TIME)
        for trained, choice, column in zip(models, choices, columns, strict=True):
            if trained.takes_classes:
                show = partial(_outputs, trained, top_k)
                choice.input(show, [file, choice], column, **ONE_AT_A_TIME)
    return page


def _column(trained: Trained, top_k: int) -> tuple[gr.Dropdown, list[gr.components.Component]]:
    """What a model shows: a choice of classes; and a message, probabilities and pictures."""
    name, file = html.escape(trained.name), html.escape(shortened(trained.file))
    gr.HTML(f'<h2>{name}</h2><p>{file}</p>')
    classes = gr.Label(num_top_classes=top_k, label='probability', buttons=[])
    message = gr.HTML(visible=False)
    named = [(name, label) for label, name in enumerate(trained.classes)]
    choice = gr.Dropdown(
        [('what it predicts, and the rival', OWN), *named],
        value=OWN,
        label='maps of',
        visible=trained.takes_classes,
    )
    pictures = gr.Gallery(
        show_label=False, format='png', columns=2, object_fit='contain', height='auto',
        interactive=False, buttons=['download', 'fullscreen'], elem_classes='whole',
    )  # fmt: skip
    return choice, [message, classes, pictures]


def _outputs(trained: Trained, top_k: int, path: str | None, asked: int) -> list[object]:
    """What the three parts of a column show of an image."""
    found = Look() if path is None else look(trained, path, top_k, [] if asked == OWN else [asked])
    message = f'<p role="alert">{html.escape(found.message)}</p>'
    shown = gr.HTML(message, visible=bool(found.message))
    return [shown, found.probabilities or None, found.pictures]
