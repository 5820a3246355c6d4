# The control of WARN's ablation study: the five-convolution network on its own
_base_ = [
    '_base_/datasets/digits.py',
    '_base_/schedules/digits.py',
    '_base_/default_runtime.py',
]

model = dict(
    type='FineGrainedClassifier',
    backbone=dict(
        type='TIMMBackbone',
        model_name='clutter_cnn',
        features_only=True,
        out_indices=(0, 1, 2, 3),
        in_channels=1,
    ),
    head=dict(type='GAPHead', num_classes=10),
)
