"""Every method leaves PyTorch's eager mode with the same scores, on every kind of network."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import timm
import torch
from timm.models import get_notrace_functions, get_notrace_modules
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch.nn.parallel import DistributedDataParallel
from torchvision.models.feature_extraction import NodePathTracer

import fgplugins
from fgplugins.zoo_timm.task import LossStep

VARIANTS = [
    *((name, {}) for name in fgplugins.list_methods()),
    ('warn', {'kernel_size': 1, 'mask': 'sigmoid', 'mix': 'prob'}),
    ('att2', {'compat': 'dp', 'classify': 'indep'}),
    ('clan', {'relation': 'embedded_gaussian', 'mask': 'sigmoid', 'taps': 3}),
]
# these change the training alone: their forward pass is that of gap
GRAPHS = [
    pytest.param(*variant, marks=[pytest.mark.slow] if variant[0] in ('siou', 'art') else [])
    for variant in VARIANTS
]
# what stands between the last map and the classifier: a convolution, layers that read the map at
# once, a normalisation, a class token
NETWORKS = {
    'test_efficientnet': {},
    'vgg11': {'mlp_ratio': 1 / 64},
    'test_convnext': {},
    'test_vit': {'img_size': (96, 64), 'dynamic_img_size': False},
}
ON_NETWORKS = [
    (method, {'backbone': name, **small})
    for name, small in NETWORKS.items()
    for method in fgplugins.list_methods()
    if (method, name) != ('siou', 'test_vit')  # refused: it has no gradient by the maps it gives
]
SLOW = ('vgg11', 'test_vit')
MATRIX = [
    pytest.param(method, kwargs, marks=[pytest.mark.slow] if kwargs['backbone'] in SLOW else [])
    for method, kwargs in ON_NETWORKS
]


def build(method: str, kwargs: dict) -> tuple[nn.Module, torch.Tensor]:
    model = timm.create_model(method, **{'backbone': 'resnet10t', 'num_classes': 5, **kwargs})
    for p in model.method.parameters():
        nn.init.normal_(p, std=0.05)
    return model.eval(), torch.randn(2, 3, 96, 64)


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


@pytest.mark.parametrize(('method', 'kwargs'), GRAPHS, ids=str)
@torch.no_grad()
def test_torch_export(method: str, kwargs: dict) -> None:
    check_export(*build(method, kwargs))


@pytest.mark.parametrize(('method', 'kwargs'), GRAPHS, ids=str)
@torch.no_grad()
def test_onnx(method: str, kwargs: dict, tmp_path: Path) -> None:
    check_onnx(*build(method, kwargs), tmp_path / 'model.onnx')


@pytest.mark.parametrize(('method', 'kwargs'), GRAPHS, ids=str)
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


@pytest.mark.parametrize(('method', 'kwargs'), GRAPHS, ids=str)
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


@pytest.mark.parametrize(('method', 'kwargs'), MATRIX, ids=str)
@torch.no_grad()
def test_exported_on_networks(method: str, kwargs: dict) -> None:
    check_export(*build(method, kwargs))


@pytest.mark.slow
@pytest.mark.parametrize(('method', 'kwargs'), MATRIX, ids=str)
@torch.no_grad()
def test_onnx_on_networks(method: str, kwargs: dict, tmp_path: Path) -> None:
    check_onnx(*build(method, kwargs), tmp_path / 'model.onnx')


@pytest.mark.slow
@pytest.mark.parametrize(('method', 'kwargs'), MATRIX, ids=str)
def test_compiled_on_networks(method: str, kwargs: dict) -> None:
    test_compile_without_graph_breaks(method, kwargs)


@pytest.mark.parametrize(('method', 'kwargs'), MATRIX, ids=str)
@torch.no_grad()
def test_scripted_and_traced_on_networks(method: str, kwargs: dict) -> None:
    model, x = build(method, kwargs)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', DeprecationWarning)  # of torch, of torch.jit
        scripted = torch.jit.script(model)
    tracer = NodePathTracer(
        leaf_modules=get_notrace_modules(),
        autowrap_functions=get_notrace_functions(),
        param_shapes_constant=True,  # as timm's own tests have it
    )
    graph = torch.fx.GraphModule(model, tracer.trace(model))
    size = (96, 64) if model.fixed_size else (64, 128)
    for given in (x, torch.randn(5, 3, *size)):
        expected = model(given)
        torch.testing.assert_close(scripted(given), expected, atol=1e-4, rtol=1e-4)
    for given in (x, torch.randn(5, *x.shape[1:])):
        torch.testing.assert_close(graph(given), model(given))


def _rank(rank: int, folder: str) -> None:
    torch.distributed.init_process_group(
        'gloo', rank=rank, world_size=2, init_method=f'file://{folder}/meeting'
    )
    torch.set_num_threads(1)
    for k, (method, kwargs) in enumerate(TRAINED):
        step, x, target = training_step(method, kwargs)
        wrapped = DistributedDataParallel(step)
        optimizer = torch.optim.SGD(step.parameters(), lr=1e-3)
        mine = slice(rank, None, 2)
        for _ in range(2):  # the second would stop at a parameter that got no gradient
            optimizer.zero_grad()
            sum(wrapped(x[mine], target[mine]).values()).backward()
            if rank == 0:
                gradients = {n: p.grad for n, p in step.named_parameters()}
                torch.save(gradients, f'{folder}/{k}.pt')
            optimizer.step()
    torch.distributed.destroy_process_group()


TRAINED = [*((method, {}) for method in fgplugins.list_methods()), *ON_NETWORKS]


def training_step(method: str, kwargs: dict) -> tuple[LossStep, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    model, _ = build(method, kwargs)
    return LossStep(model).train(), torch.randn(4, 3, 96, 64), torch.tensor([0, 1, 2, 3])


@pytest.mark.slow
def test_two_processes_on_networks(tmp_path: Path) -> None:
    """Every parameter is trained in each, in two steps of gloo."""
    torch.multiprocessing.spawn(_rank, (str(tmp_path),), nprocs=2)
    for k, (method, kwargs) in enumerate(TRAINED):
        gradients = torch.load(tmp_path / f'{k}.pt')
        wrong = [n for n, g in gradients.items() if g is None or not g.isfinite().all()]
        assert not wrong, (method, kwargs, wrong)
        assert set(gradients) == {n for n, _ in training_step(method, kwargs)[0].named_parameters()}


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
