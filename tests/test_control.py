"""The control is the network itself: its scores, its weights, its state dict when deployed."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import pytest
import timm
import torch
from timm.models import get_model_input_config, save_for_hf
from torch import Tensor, nn

from fgplugins.errors import UserError
from fgplugins.networks.classifiers import ClassifierPlace
from fgplugins.zoo_timm.checkpoints import read_checkpoint
from fgplugins.zoo_timm.deploy import deploy
from fgplugins.zoo_timm.loading import load_timm

CLASSES = 7
# one network of each kind of head, and what makes it small
KINDS: dict[str, dict[str, object]] = {
    'test_resnet': {},
    'test_efficientnet': {},  # a convolution before the pooling
    'mobilenetv3_small_050': {},  # and one behind it
    'vgg11': {'mlp_ratio': 1 / 64},  # layers that read the map at once
    'test_convnext': {},  # a normalisation behind the pooling
    'test_vit': {},  # a class token
    'levit_128s': {},  # two classifiers, each with a normalisation
    'repvit_m1': {},  # a classifier that is a module of its own
    'dla46x_c': {},  # a 1x1 convolution as the classifier
    'gmlp_ti16_224': {'img_size': 64},
    'swin_tiny_patch4_window7_224': {  # channels last
        'img_size': 64, 'window_size': 2, 'embed_dim': 24, 'depths': (1, 1), 'num_heads': (2, 4),
    },
}  # fmt: skip
# networks whose classifier is not a function of one vector
NO_CONTROL = {
    'crossvit_tiny_240': 'two classifiers, of one branch each',
    'efficientvim_m1': 'the scores of several classifiers, weighted',
    'volo_d1_224': 'half of the largest score of a position is added',
}
COVERAGE = Path(__file__).parent.parent / 'docs' / 'results' / 'coverage.json'
SUBJECTS = [row['subject'] for row in json.loads(COVERAGE.read_text())['timm'].values()]
BELOW_30_M = [subject['model'] for subject in SUBJECTS if subject['parameters'] < 30e6]


def move(network: nn.Module) -> nn.Module:
    """As after training: statistics, scales and what starts at zero have other values."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if getattr(module, 'running_mean', None) is not None:
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    with torch.no_grad():
        for p in network.parameters():
            if p.ndim == 1:
                p.add_(torch.randn(p.shape, generator=generator) * 0.1)
            elif not p.any():
                p.normal_(0, 0.02, generator=generator)
    return network.eval()


def plain_network(name: str, num_classes: int = CLASSES, **kwargs: object) -> nn.Module:
    return move(timm.create_model(name, num_classes=num_classes, **kwargs))


def weights_file(network: nn.Module, folder: Path) -> str:
    file = folder / 'weights.pth'
    torch.save(network.state_dict(), file)
    return str(file)


def images(network: nn.Module, side: int | None = 64) -> Tensor:
    own = get_model_input_config(network)
    size = own['input_size'][1:] if own['fixed_input_size'] or side is None else (side, side)
    return torch.randn(2, 3, *size)


def difference(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.abs().max())


@torch.no_grad()
def check_control(name: str, folder: Path, side: int | None = 64, **kwargs: object) -> None:
    """``gap`` on a network, with the weights of a file, has the network's scores."""
    network = plain_network(name, **kwargs)
    file = weights_file(network, folder)
    model = timm.create_model(
        'gap', backbone=name, num_classes=CLASSES, backbone_checkpoint=file, **kwargs
    ).eval()
    x = images(network, side)
    scores = network(x)
    assert model.head == 'network'
    assert difference(model(x), scores) < 1e-5
    features, given = model.method.split(model.read(x))  # the door of training
    assert difference(model.method(features, **given), scores) < 1e-5


@pytest.mark.parametrize('name', KINDS)
def test_the_control_is_the_network(name: str, tmp_path: Path) -> None:
    check_control(name, tmp_path, **KINDS[name])


@pytest.mark.slow
@pytest.mark.parametrize('name', BELOW_30_M)
def test_the_control_is_the_network_in_every_module(name: str, tmp_path: Path) -> None:
    if name not in NO_CONTROL:
        check_control(name, tmp_path, side=None)
        return
    with pytest.warns(UserWarning, match="head='mean'.*classifier that reads more than one vector"):
        model = timm.create_model('gap', backbone=name, num_classes=CLASSES)
    assert model.head == 'mean'


@pytest.mark.slow
def test_there_are_few_modules_without_a_control() -> None:
    assert len(BELOW_30_M) == 83 and set(NO_CONTROL) < set(BELOW_30_M) and len(NO_CONTROL) <= 5


# -------------------------------------------------------------------------------------- deploying

DEPLOYED = ('test_resnet', 'test_efficientnet', 'test_convnext', 'vgg11', 'levit_128s')


@pytest.mark.parametrize('name', [*DEPLOYED, 'resnetv2_18'])
@pytest.mark.parametrize('method', ['gap', 'art', 'siou'])
@torch.no_grad()
def test_deployed_is_the_network(method: str, name: str) -> None:
    kwargs = KINDS.get(name, {})
    if (method, name) == ('siou', 'levit_128s'):
        with pytest.raises(ValueError, match='siou on levit_128s'):
            timm.create_model(method, backbone=name, num_classes=CLASSES, **kwargs)
        return
    model = timm.create_model(method, backbone=name, num_classes=CLASSES, **kwargs)
    deployed, architecture, arguments = deploy(move(model))
    plain = timm.create_model(architecture, **arguments).eval()
    assert architecture == name and type(deployed) is type(plain)
    shapes = [{k: v.shape for k, v in m.state_dict().items()} for m in (deployed, plain)]
    assert list(shapes[0]) == list(shapes[1]) and shapes[0] == shapes[1]
    plain.load_state_dict(deployed.state_dict())
    x = images(plain)
    assert torch.equal(deployed(x), model(x)) and torch.equal(plain(x), model(x))


# ---------------------------------------------------------------------------------------- weights


def own_classifier(model: nn.Module) -> nn.Module:
    return model.method.get_submodule(model.method.embedding_classifier)


@pytest.mark.parametrize('name', ['test_efficientnet', 'test_convnext', 'vgg11', 'levit_128s'])
@pytest.mark.parametrize('method', ['gap', 'siou', 'warn', 'clan'])
def test_a_file_brings_the_head_and_the_classifier(method: str, name: str, tmp_path: Path) -> None:
    """The classifier where it is of as many classes; else that is new."""
    if (method, name) == ('siou', 'levit_128s'):
        pytest.skip('siou is refused on levit_128s')
    kwargs = KINDS[name]
    network = plain_network(name, **kwargs)
    given = {'backbone': name, 'backbone_checkpoint': weights_file(network, tmp_path), **kwargs}
    state = network.state_dict()
    for num_classes in (CLASSES, CLASSES + 1):
        model = timm.create_model(method, num_classes=num_classes, **given)
        backbone = model.backbone.state_dict()
        assert backbone and all(torch.equal(v, state[k]) for k, v in backbone.items())
        own = model.place.weights(own_classifier(model))
        assert set(own) | set(backbone) == set(state)
        sized = [k for k, v in own.items() if num_classes in v.shape]
        assert sized
        if num_classes == CLASSES:
            assert all(torch.equal(v, state[k]) for k, v in own.items())
        else:
            assert not any(own[k].shape == state[k].shape for k in sized)


@pytest.mark.parametrize('name', ['test_efficientnet', 'vgg11', 'levit_128s'])
def test_a_file_without_a_classifier(name: str, tmp_path: Path) -> None:
    network = plain_network(name, num_classes=0, **KINDS[name])
    model = timm.create_model(
        'gap', backbone=name, num_classes=CLASSES,
        backbone_checkpoint=weights_file(network, tmp_path), **KINDS[name],
    ).eval()  # fmt: skip
    x = images(network)
    with torch.no_grad():
        z = model.forward_head(model.forward_features(x), pre_logits=True)
        assert difference(z, network(x)) < 1e-5
        assert model(x).shape == (2, CLASSES) and model(x).isfinite().all()


@pytest.mark.parametrize('num_classes', [CLASSES, CLASSES + 1])
@pytest.mark.parametrize('method', ['gap', 'warn'])
def test_published_weights(method: str, num_classes: int, tmp_path: Path) -> None:
    """``pretrained=True`` of a folder, as of a hub: timm's own path."""
    network = plain_network('test_efficientnet')
    save_for_hf(network, tmp_path / 'published')
    name = f'local-dir:{tmp_path / "published"}'
    model = timm.create_model(method, backbone=name, pretrained=True, num_classes=num_classes)
    assert torch.equal(model.backbone.conv_head.weight, network.conv_head.weight)
    classifier = own_classifier(model)
    same_number = num_classes == CLASSES
    assert (classifier.weight.shape == network.classifier.weight.shape) == same_number
    if same_number:
        assert torch.equal(classifier.weight, network.classifier.weight)
    if same_number and method == 'gap':
        x = images(network)
        with torch.no_grad():
            assert difference(model.eval()(x), network(x)) < 1e-5


@pytest.mark.parametrize('method', ['gap', 'clan'])
def test_weights_of_the_whole_model(method: str, tmp_path: Path) -> None:
    """Timm's overlay names a file; another number of classes leaves the classifiers new."""
    given = {'backbone': 'test_efficientnet', 'pretrained': True}
    one = move(timm.create_model(method, backbone='test_efficientnet', num_classes=CLASSES))
    overlay = {'file': weights_file(one, tmp_path), 'num_classes': CLASSES}
    again = timm.create_model(
        method, num_classes=CLASSES, pretrained_cfg_overlay=overlay, **given
    ).state_dict()
    assert all(torch.equal(v, again[k]) for k, v in one.state_dict().items())
    other = timm.create_model(method, num_classes=3, pretrained_cfg_overlay=overlay, **given)
    assert torch.equal(other.backbone.conv_head.weight, one.backbone.conv_head.weight)
    assert own_classifier(other).weight.shape[0] == 3


# -------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (
            {'backbone': 'qwen3_vit_88m_enc', 'head': 'network', 'device': 'meta'},
            "head='network': qwen3_vit_88m_enc has no classifier; head='mean' averages its",
        ),
        (
            {'backbone': 'crossvit_tiny_240', 'head': 'network'},
            "head='network': crossvit_tiny_240 has a classifier that reads more than one vector",
        ),
        ({'levels': (9,)}, r'levels=\[9\]: test_efficientnet has 5 maps, 0 to 4'),
        ({'levels': (-6,)}, r'levels=\[-6\]: test_efficientnet has 5 maps, 0 to 4'),
        (
            {'levels': (2,), 'head': 'network'},
            "head='network': test_efficientnet has its head above level 4, the last that is read "
            "is 2; head='mean' averages its last map",
        ),
        (
            {'levels': (1, 2), 'head': 'network', 'method': 'att2'},
            "head='network': test_efficientnet has its head above level 4, the last that is read "
            'is 2; leave head out',
        ),
        ({'head': 'nonsense'}, "head='nonsense': must be 'network' or 'mean'"),
        ({'head': 'nonsense', 'method': 'att2'}, "head='nonsense': must be 'network' or 'mean'"),
    ],
)  # fmt: skip
def test_heads_that_cannot_be(arguments: dict, message: str) -> None:
    given = {'method': 'gap', 'backbone': 'test_efficientnet', 'num_classes': 3, **arguments}
    with pytest.raises(ValueError, match=message) as caught:
        timm.create_model(given.pop('method'), **given)
    assert '\n' not in str(caught.value)


def test_levels_that_stop_short_mean_the_mean_of_the_last() -> None:
    with pytest.warns(UserWarning, match="head='mean'.*above level 4, the last that is read is 2"):
        model = timm.create_model('gap', backbone='test_efficientnet', num_classes=3, levels=(2,))
    assert model.head == 'mean' and not any(n.startswith('conv_head') for n in model.state_dict())


def test_a_file_of_another_architecture_is_refused(tmp_path: Path) -> None:
    file = weights_file(plain_network('test_resnet'), tmp_path)
    for name in ('test_efficientnet', 'test_vit', 'levit_128s', 'test_convnext'):
        with pytest.raises(ValueError, match=r'^backbone_checkpoint=.* does not fit: ') as caught:
            timm.create_model('gap', backbone=name, num_classes=3, backbone_checkpoint=file)
        assert '\n' not in str(caught.value)


# ---------------------------------------------------------------------------- checkpoints of 0.1


def old_checkpoint(name: str, file: Path, says: bool = True) -> nn.Module:
    """What 0.1 saved of ``gap``: the last map's mean was classified on every network."""
    model = move(timm.create_model('gap', backbone=name, num_classes=CLASSES, head='mean'))
    content = {'state_dict': model.state_dict()}
    content['state_dict']._metadata['']['version'] = 1
    if says:
        content['arch'] = 'gap'
        content['model_args'] = {'backbone': name, 'num_classes': CLASSES}
    torch.save(content, file)
    return model


@pytest.mark.parametrize('name', ['test_efficientnet', 'test_vit', 'test_convnext', 'test_resnet'])
def test_old_checkpoints_are_read_as_they_were(name: str, tmp_path: Path) -> None:
    model = old_checkpoint(name, tmp_path / 'old.pth')
    loaded = load_timm('gap', str(tmp_path / 'old.pth'), {})
    x = images(model)
    with torch.no_grad():
        assert loaded.model.head == 'mean' and torch.equal(loaded.model(x), model(x))
    saved = read_checkpoint(str(tmp_path / 'old.pth'))
    now = timm.create_model('gap', backbone=name, num_classes=CLASSES)
    refused = pytest.raises(
        ValueError, match=r"averaged the last map of .* build the model with head='mean'"
    )
    with nullcontext() if name == 'test_resnet' else refused:
        now.load_state_dict(torch.load(tmp_path / 'old.pth', weights_only=True)['state_dict'])
    assert saved.version == 1


def test_old_weights_that_do_not_say_so_are_refused(tmp_path: Path) -> None:
    """Weights alone, as safetensors hold them."""
    model = old_checkpoint('test_efficientnet', tmp_path / 'old.pth', says=False)
    torch.save({'state_dict': dict(model.state_dict())}, tmp_path / 'old.pth')
    given = {'backbone': 'test_efficientnet', 'num_classes': CLASSES}
    with pytest.raises(UserError, match=r'they fit --model-kwargs head=mean$') as caught:
        load_timm('gap', str(tmp_path / 'old.pth'), given)
    assert '\n' not in str(caught.value)
    loaded = load_timm('gap', str(tmp_path / 'old.pth'), {**given, 'head': 'mean'})
    assert torch.equal(loaded.model.method.classifier.weight, model.method.classifier.weight)


def test_saved_arguments_say_which_head(tmp_path: Path) -> None:
    """Those of 0.1 did not: a folder without it is read as 0.1 built it."""
    for name in ('test_vit', 'test_efficientnet'):
        model = timm.create_model('gap', backbone=name, num_classes=CLASSES)
        save_for_hf(model, tmp_path / name)
        again = timm.create_model(f'local-dir:{tmp_path / name}', pretrained=True)
        assert again.head == 'network'
        file = tmp_path / name / 'config.json'
        config = json.loads(file.read_text())
        assert config['model_args'].pop('head') == 'network'
        config['model_args']['global_pool'] = 'avg'
        file.write_text(json.dumps(config))
        old = timm.create_model(f'local-dir:{tmp_path / name}')
        assert old.head == 'mean'


def test_the_layers_of_a_classifier_are_named_where_they_are() -> None:
    """timm leaves them out when it loads weights of another number of classes."""
    both = ClassifierPlace(('head', 'head_dist'), ('head.linear', 'head_dist.linear'))
    assert both.names_inside == ['0.linear', '1.linear']
    assert ClassifierPlace(('head.fc',), ('head.fc',)).names_inside == ['']
    deeper = ClassifierPlace(('head',), ('head.head.l', 'head.head_dist.l'))
    assert deeper.names_inside == ['head.l', 'head_dist.l']
    for name in ('levit_128s', 'repvit_m0_9', 'resnetv2_18'):
        model = timm.create_model('gap', backbone=name, num_classes=3)
        names = model.pretrained_cfg['classifier']
        names = [names] if isinstance(names, str) else list(names)
        state = model.state_dict()
        assert len(set(names)) == len(names)
        assert all(state[f'{n}.weight'].shape[0] == 3 for n in names)
