# WARN, Table 1, row "28 3 4", CIFAR-100
_base_ = [
    '_base_/datasets/cifar100.py',
    '_base_/schedules/cifar_wrn.py',
    '_base_/default_runtime.py',
]

model = dict(
    type='FineGrainedClassifier',
    backbone=dict(
        type='TIMMBackbone', model_name='wrn28_10', features_only=True, out_indices=(0, 1, 2)
    ),
    head=dict(type='WARNHead', num_classes=100, taps=3, heads=4),
)
