# att2's baseline VGG-GAP: the same network, its last map averaged
_base_ = './att2_vgg_cifar10.py'

model = dict(
    backbone=dict(out_indices=(2,)),
    head=dict(_delete_=True, type='GAPHead', num_classes=10),
)
