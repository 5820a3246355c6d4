# The control of WARN's ablation study: the five-convolution network on its own
_base_ = [
    '_base_/datasets/digits.py',
    '_base_/schedules/digits.py',
    '_base_/default_runtime.py',
]

model = dict(
    type='FineGrainedClassifier',
    backbone=dict(type='TimmNetwork', model_name='clutter_cnn', head='mean', in_channels=1),
    head=dict(type='GAPHead', num_classes=10),
)
