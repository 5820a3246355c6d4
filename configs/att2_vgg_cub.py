# att2, Table 2, CUB: (VGG-att2)-concat-pc, started from the weights learned on CIFAR-100
_base_ = [
    '_base_/datasets/cub_32.py',
    '_base_/schedules/att2_cub.py',
    '_base_/default_runtime.py',
]

model = dict(
    type='FineGrainedClassifier',
    backbone=dict(type='TimmNetwork', model_name='att_vgg', head='mean'),
    head=dict(type='Att2Head', num_classes=200, taps=2, pool_first=True),
)
