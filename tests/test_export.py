"""Every method leaves PyTorch's eager mode with the same scores."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter

import fgplugins

VARIANTS = [
    *((name, {}) for name in fgplugins.list_methods()),
    ('warn', {'kernel_size': 1, 'mask': 'sigmoid', 'mix': 'prob'}),
    ('att2', {'compat': 'dp', 'classify': 'indep'}),
    ('clan', {'relation': 'embedded_gaussian', 'mask': 'sigmoid', 'taps': 3}),
]


def build(method: str, kwargs: dict) -> tuple[nn.Module, torch.Tensor]:
    model = timm.create_model(method, backbone='resnet10t', num_classes=5, **kwargs).eval()
    for p in model.method.parameters():
        nn.init.normal_(p, std=0.05)
    return model, torch.randn(2, 3, 96, 64)


def check_export(model: nn.Module, x: torch.Tensor, rtol: float = 1e-4) -> None:
    """Exported for any batch by torch.export."""
    exported = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim('N', min=2)},))
    for given in (x, torch.randn(5, *x.shape[1:])):
        torch.testing.assert_close(exported.module()(given), model(given), atol=1e-4, rtol=rtol)


def check_onnx(model: nn.Module, x: torch.Tensor, path: Path, rtol: float = 1e-4) -> None:
    """Opset 18, checked in onnxruntime."""
    onnxruntime = pytest.importorskip('onnxruntime', reason='install the extra test')
    pytest.importorskip('onnxscript', reason='install the extra test')
    torch.onnx.export(model, (x,), str(path), dynamo=True, opset_version=18, verbose=False)
    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    (scores,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(scores), model(x), atol=1e-4, rtol=rtol)


@pytest.mark.parametrize(('method', 'kwargs'), VARIANTS, ids=str)
@torch.no_grad()
def test_torch_export(method: str, kwargs: dict) -> None:
    check_export(*build(method, kwargs))


@pytest.mark.parametrize(('method', 'kwargs'), VARIANTS, ids=str)
@torch.no_grad()
def test_onnx(method: str, kwargs: dict, tmp_path: Path) -> None:
    check_onnx(*build(method, kwargs), tmp_path / 'model.onnx')


@pytest.mark.parametrize(('method', 'kwargs'), VARIANTS, ids=str)
def test_compile_without_graph_breaks(method: str, kwargs: dict) -> None:
    """The forward pass and its gradients, in one graph."""
    model, x = build(method, kwargs)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend='aot_eager')
    torch.testing.assert_close(compiled(x), model(x), atol=1e-5, rtol=1e-5)
    for forward in (model, compiled):
        model.zero_grad()
        forward(x).square().sum().backward()
        gradients = [p.grad.clone() for p in model.method.parameters() if p.grad is not None]
        if forward is model:
            expected = gradients
    for a, b in zip(gradients, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(('method', 'kwargs'), VARIANTS, ids=str)
@torch.no_grad()
def test_inductor(method: str, kwargs: dict) -> None:
    model, x = build(method, kwargs)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True)
    torch.testing.assert_close(compiled(x), model(x), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(('method', 'kwargs'), VARIANTS, ids=str)
@torch.no_grad()
def test_compiled_once_for_batches_and_sizes(method: str, kwargs: dict) -> None:
    """Other batches and sizes take the graph that is there; CLAN has another for large maps."""
    model, _ = build(method, kwargs)
    counter = CompileCounter()
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=counter)
    for N, H, W in ((2, 96, 64), (3, 64, 128), (5, 128, 96), (4, 96, 96), (7, 160, 64)):
        x = torch.randn(N, 3, H, W)
        torch.testing.assert_close(compiled(x), model(x), atol=1e-4, rtol=1e-4)
    assert counter.frame_count == 1


PRESETS = [name for name in timm.list_models(module='fg_models') if '_' in name]


@pytest.mark.slow
@pytest.mark.parametrize('name', PRESETS)
@torch.no_grad()
def test_presets_as_onnx_and_exported(name: str, tmp_path: Path) -> None:
    """Every preset, opset 18, in onnxruntime; any batch by torch.export."""
    model = timm.create_model(name, num_classes=7).eval()
    side = min(64, model.input_size[0])
    x = torch.randn(2, 3, side, side)
    check_export(model, x, rtol=1e-3)
    check_onnx(model, x, tmp_path / 'model.onnx', rtol=1e-3)
