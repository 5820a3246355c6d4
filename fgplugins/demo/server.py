"""Serves the demo's page on this machine, and keeps Gradio from asking anybody else."""

from __future__ import annotations

import errno
import importlib.util
import ipaddress
import os
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fgplugins.errors import UserError, one_line

if TYPE_CHECKING:
    import gradio as gr

__all__ = ['alone', 'check_address', 'is_loopback', 'need_gradio', 'serve']

LOOPBACK = '127.0.0.1'
STYLE = '.whole .grid-wrap {max-height: none !important}'  # every map, without a bar to scroll


def need_gradio() -> None:
    """Refuse without Gradio.

    Raises:
        UserError: if it, or what draws the maps, is not installed.
    """
    if not (importlib.util.find_spec('gradio') and importlib.util.find_spec('matplotlib')):
        raise UserError("the demo needs Gradio and matplotlib: pip install 'fgplugins[demo]'")


@contextmanager
def alone() -> Iterator[None]:
    """Inside, Gradio and the hub's client ask nobody, and images that are dropped are not kept.

    Both read these settings when they are imported, which must be inside.
    """
    with tempfile.TemporaryDirectory(prefix='fgplugins_demo_') as folder:
        os.environ.update(
            GRADIO_ANALYTICS_ENABLED='False',
            GRADIO_TEMP_DIR=folder,
            HF_HUB_DISABLE_TELEMETRY='1',
            HF_HUB_OFFLINE='1',
        )
        for name in ('no_proxy', 'NO_PROXY'):  # Gradio calls its own server to see that it is up
            known = os.environ.get(name)
            os.environ[name] = ','.join([*([known] if known else []), LOOPBACK, 'localhost'])
        yield


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host.strip('[]')).is_loopback
    except ValueError:
        return host == 'localhost'


def check_address(host: str, port: int | None) -> None:
    """Refuse an address that cannot be served at.

    Args:
        host: the address.
        port: of it; any if None.

    Raises:
        UserError: if it is none of this machine, or the port is taken.
    """
    try:
        found = socket.getaddrinfo(host.strip('[]'), port or 0, type=socket.SOCK_STREAM)
        family, kind, protocol, _, address = found[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(
                f'--port {port}: is taken: another would work, or none to take a free one'
            ) from None
        if error.errno == errno.EACCES:
            raise UserError(f'--port {port}: no permission: one above 1023 would work') from None
        raise UserError(
            f'--host {host}: is no address of this machine: 127.0.0.1 would work'
        ) from None


def serve(page: gr.Blocks, host: str, port: int | None) -> None:
    """Serve a page until Ctrl-C, or until the process is told to end.

    Args:
        page: the page.
        host: address to serve at.
        port: of it; the first free one from 7860 on if None.

    Raises:
        UserError: if Gradio cannot start there.
    """
    import gradio as gr

    font, letters = ['system-ui', 'sans-serif'], ['ui-monospace', 'monospace']
    try:
        _, url, _ = page.launch(
            server_name=host, server_port=port, share=False, quiet=True, prevent_thread_lock=True,
            inbrowser=False, footer_links=[], run_history=False, enable_monitoring=False,
            ssr_mode=False, pwa=False, mcp_server=False, css=STYLE,
            theme=gr.themes.Default(font=font, font_mono=letters),
        )  # fmt: skip
    except (OSError, ValueError) as error:  # no port is free, or a proxy stands before this machine
        where = f'--host {host}' + ('' if port is None else f' --port {port}')
        raise UserError(f'{where}: {one_line(error, 200)}') from None
    if not is_loopback(host):
        print(f'note: --host {host}: anybody who reaches this machine there can use the demo')
    print(f'the demo is at {url} until Ctrl-C', flush=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        print('the demo has ended')
    finally:
        page.close(verbose=False)
