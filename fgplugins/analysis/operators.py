"""What every operator costs, for fvcore: multiply-adds, or elementary operations.

The multiply-adds (MACs) are those of convolutions, linear layers and matrix products: what papers
print as FLOPs. Everything else that computes is counted in elementary operations:

    one for each value        sums, products, comparisons of maxima, activations
    two                       normalisation in eval mode, with its scale (one without)
    three                     softmax: exponential, sum, division
    four or five              layer and group normalisation, as fvcore estimates them
    the window                pooling, for each value that comes out
    the neighbours            resampling, for each value that comes out: 4 if bilinear

Moving, comparing and choosing values is free. An operator that no table here has is reported by its
name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from fvcore.nn.jit_handles import (
    batchnorm_flop_jit,
    conv_flop_jit,
    get_shape,
    norm_flop_counter,
)

__all__ = ['FREE', 'HANDLERS', 'MAC_OPERATORS']

Handler = Callable[[Sequence[Any], Sequence[Any]], Counter[str]]

MAC_OPERATORS = (
    'addmm',
    'affine_grid',
    'baddbmm',
    'bmm',
    'conv',
    'dot',
    'einsum',
    'gru',
    'linear',
    'lstm',
    'matmul',
    'mm',
    'mv',
    'scaled_dot_product_attention',
)


def _shape(value: Any) -> list[int]:
    """The sizes of a traced value; none, as of a single number, if it is not a tensor."""
    return (get_shape(value) if value.type().kind() == 'TensorType' else None) or []


def _computes(value: Any) -> bool:
    """Whether a traced value is of floating point; whole numbers are shapes, not the network's."""
    if value.type().kind() != 'TensorType':
        return False
    return value.type().scalarType() in ('Float', 'Double', 'Half', 'BFloat16', None)


def _numel(value: Any) -> int:
    return prod(_shape(value))


def _name(kind: str) -> str:
    return kind.removeprefix('aten::').rstrip('_')


# ------------------------------------------------------------------------------ multiply-adds


def _with_bias(name: str, macs: int, bias: Any, output: Any) -> Counter[str]:
    """MACs, and the additions of the bias if there is one."""
    counts = Counter({name: int(macs)})
    if bias.type().kind() == 'TensorType':
        counts['bias'] = _numel(output)
    return counts


def _convolution(inputs: Sequence[Any], outputs: Sequence[Any]) -> Counter[str]:
    return _with_bias('conv', conv_flop_jit(inputs, outputs)['conv'], inputs[2], outputs[0])


def _convolution_mode(inputs: Sequence[Any], outputs: Sequence[Any]) -> Counter[str]:
    """A convolution whose padding is a word, as 'same'."""
    macs = _numel(outputs[0]) * prod(_shape(inputs[1])[1:])
    return _with_bias('conv', macs, inputs[2], outputs[0])


def _linear(inputs: Sequence[Any], outputs: Sequence[Any]) -> Counter[str]:
    macs = _numel(outputs[0]) * _shape(inputs[1])[-1]
    return _with_bias('linear', macs, inputs[2], outputs[0])


def _product(name: str, left: int = 0) -> Handler:
    """A matrix product whose left factor is input number ``left``.

    If ``left`` is above 0, input 0 is a matrix that is added: elementary operations.
    """

    def count(inputs: Sequence[Any], outputs: Sequence[Any]) -> Counter[str]:
        counts = Counter({name: _numel(outputs[0]) * _shape(inputs[left])[-1]})
        if left:
            counts['add'] = _numel(outputs[0])
        return counts

    return count


def _attention(inputs: Sequence[Any], outputs: Sequence[Any]) -> Counter[str]:
    """Two products, queries by keys and weights by values, with a softmax between them."""
    query, key, value = (_shape(i) for i in inputs[:3])
    weights = prod(query[:-1]) * key[-2]
    macs = weights * (query[-1] + value[-1])
    # the scale and the mask, if there is one, are applied to the weights too
    masked = inputs[3].type().kind() == 'TensorType'
    return Counter({'scaled_dot_product_attention': macs, 'softmax': (4 + masked) * weights})


def _contraction(terms: list[str], result: str, sizes: dict[str, int]) -> Counter[str]:
    """Multiply two terms at a time, from the left, as torch does."""
    counts: Counter[str] = Counter()
    left, *rest = terms
    for i, right in enumerate(rest):
        kept = set(result).union(*rest[i + 1 :])
        every = set(left) | set(right)
        work = prod(sizes[letter] for letter in every)
        counts['einsum' if every - kept else 'mul'] += work
        left = ''.join(letter for letter in sorted(every) if letter in kept)
    if len(terms) == 1 and set(left) - set(result):
        counts['sum'] += prod(sizes[letter] for letter in set(left))
    return counts


def _einsum(inputs: Sequence[Any], outputs: Sequence[Any]) -> Counter[str]:
    """Every combination of the indices is a multiply-add.

    fvcore's own handler counts half of one where nothing is summed, and allocates the operands.
    """
    equation = inputs[0].toIValue().replace(' ', '')
    operands, _, result = equation.partition('->')
    shapes = [_shape(value) for value in inputs[1].node().inputs()]
    terms, sizes = [], {}
    for term, shape in zip(operands.split(','), shapes, strict=True):
        if '...' in term:
            hidden = len(shape) - len(term.replace('...', ''))
            # digits stand for the dimensions of an ellipsis, counted from its end
            digits = ''.join(str(d) for d in reversed(range(hidden)))
            term = term.replace('...', digits)
            result = result.replace('...', digits) if len(digits) else result
        for letter, size in zip(term, shape, strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))
        terms.append(term)
    if '->' not in equation:
        letters = ''.join(terms)
        result = ''.join(letter for letter in letters if letters.count(letter) == 1)
    return _contraction(terms, result.replace('...', ''), sizes)


def _affine_grid(inputs: Sequence[Any], outputs: Sequence[Any]) -> Counter[str]:
    """The coordinates of every position, and a one, times a matrix."""
    return Counter({'affine_grid': _numel(outputs[0]) * _shape(inputs[0])[-1]})


def _recurrent(name: str) -> Handler:
    """A recurrent layer applies each of its weight matrices once a step."""

    def count(inputs: Sequence[Any], outputs: Sequence[Any]) -> Counter[str]:
        steps = prod(_shape(inputs[0])[:-1])
        shapes = [_shape(value) for value in inputs[2].node().inputs()]
        return Counter({name: steps * sum(prod(shape) for shape in shapes if len(shape) == 2)})

    return count


# ------------------------------------------------------------------------ elementary operations


def _elementary(kind: str, each: int = 1, of: str = 'output') -> Handler:
    """``each`` operations for every value of the output, or of the input."""

    def count(inputs: Sequence[Any], outputs: Sequence[Any]) -> Counter[str]:
        value = outputs[0] if of == 'output' else inputs[0]
        return Counter({_name(kind): each * _numel(value)}) if _computes(value) else Counter()

    return count


def _fvcore(kind: str, handle: Callable[..., float]) -> Handler:
    """One of fvcore's handlers, under the operator's name."""
    return lambda inputs, outputs: Counter({_name(kind): int(handle(inputs, outputs))})


def _window(kind: str) -> Handler:
    """Pooling reads its window for every value of the output."""

    def count(inputs: Sequence[Any], outputs: Sequence[Any]) -> Counter[str]:
        sides = [value.toIValue() for value in inputs[1].node().inputs()]
        if not sides or None in sides:  # computed from the map's sizes: it is the whole map
            return Counter({_name(kind): _numel(inputs[0])})
        if len(sides) == 1:
            sides *= int(kind[-2])  # one number for every side; the kind ends in 1d, 2d or 3d
        return Counter({_name(kind): prod(sides) * _numel(outputs[0])})

    return count


def _grid_sample(inputs: Sequence[Any], outputs: Sequence[Any]) -> Counter[str]:
    neighbours = {0: 4, 1: 1, 2: 16}[inputs[2].toIValue()]  # bilinear, nearest, bicubic
    if len(_shape(inputs[0])) == 5 and neighbours == 4:
        neighbours = 8
    return Counter({'grid_sample': neighbours * _numel(outputs[0])})


_POINTWISE = """
    abs acos add addcdiv addcmul asin atan atan2 ceil celu clamp clamp_max clamp_min cos div elu erf
    erfc exp exp2 expm1 floor fmod frac gelu glu hardsigmoid hardswish hardtanh leaky_relu lerp log
    log10 log1p log2 log_sigmoid maximum minimum mish mul neg pow prelu reciprocal relu relu6 round
    rrelu rsqrt rsub selu sigmoid sign silu sin sinh softplus softshrink softsign sqrt square sub
    tan tanh tanhshrink threshold trunc xlogy
"""
_REDUCTIONS = """
    amax amin argmax argmin cumprod cumsum max mean median min norm prod std sum var
    linalg_vector_norm adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
    adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d col2im
"""
_SEVERAL_EACH = {'softmax': 3, 'log_softmax': 3, 'logsumexp': 3, 'normalize': 3}
_RESAMPLING = {
    'upsample_nearest1d': 1,
    'upsample_nearest2d': 1,
    'upsample_nearest3d': 1,
    '_upsample_nearest_exact2d': 1,
    'upsample_linear1d': 2,
    'upsample_bilinear2d': 4,
    '_upsample_bilinear2d_aa': 4,
    'upsample_trilinear3d': 8,
    'upsample_bicubic2d': 16,
    '_upsample_bicubic2d_aa': 16,
}


def _handlers() -> dict[str, Handler]:
    handlers: dict[str, Handler] = {
        'aten::_convolution': _convolution,
        'aten::_convolution_mode': _convolution_mode,
        'aten::linear': _linear,
        'aten::matmul': _product('matmul'),
        'aten::mm': _product('mm'),
        'aten::bmm': _product('bmm'),
        'aten::mv': _product('mv'),
        'aten::dot': _product('dot'),
        'aten::addmm': _product('addmm', left=1),
        'aten::baddbmm': _product('baddbmm', left=1),
        'aten::einsum': _einsum,
        'aten::scaled_dot_product_attention': _attention,
        'aten::affine_grid_generator': _affine_grid,
        'aten::lstm': _recurrent('lstm'),
        'aten::gru': _recurrent('gru'),
        'aten::grid_sampler': _grid_sample,
    }
    for kind, handle in (
        ('aten::batch_norm', batchnorm_flop_jit),
        ('aten::layer_norm', norm_flop_counter(2)),
        ('aten::group_norm', norm_flop_counter(2)),
        ('aten::instance_norm', norm_flop_counter(1)),
        ('aten::rms_norm', norm_flop_counter(2)),
    ):
        handlers[kind] = _fvcore(kind, handle)
    for name in _POINTWISE.split():
        for kind in (f'aten::{name}', f'aten::{name}_'):
            handlers[kind] = _elementary(kind)
    for name in _REDUCTIONS.split():
        handlers[f'aten::{name}'] = _elementary(name, of='input')
    for name, each in _SEVERAL_EACH.items():
        handlers[f'aten::{name}'] = _elementary(name, each, of='input')
    for name, each in _RESAMPLING.items():
        handlers[f'aten::{name}'] = _elementary(name.strip('_'), each)
    for name in (f'{kind}_pool{n}d' for kind in ('max', 'avg') for n in (1, 2, 3)):
        handlers[f'aten::{name}'] = _window(f'aten::{name}')
    return handlers


HANDLERS = _handlers()

# copying, reshaping, comparing and choosing; fvcore leaves more such operators out by itself
_FREE = """
    alias alpha_dropout bernoulli bernoulli_ bitwise_and bitwise_or clone contiguous detach_
    diag_embed diagonal dim dropout_ empty_like expand_as eye feature_dropout fill_ flip getitem gt
    hstack im2col index_select is_floating_point isfinite item le lift_fresh linspace logical_and
    logical_not logical_or lt masked_fill_ meshgrid moveaxis movedim mT narrow_copy native_dropout
    ne new_ones new_zeros numel numpy_T ones_like pad pixel_shuffle pixel_unshuffle rand_like
    randn_like reflection_pad2d repeat repeat_interleave replication_pad2d reshape_as resolve_conj
    rot90 scalar_tensor scatter squeeze_ swapaxes swapdims sym_size take_along_dim tensor
    tensor_split tile transpose_ tril triu unflatten unfold view_as vstack where zero_
"""
FREE = tuple(f'aten::{name}' for name in _FREE.split())
