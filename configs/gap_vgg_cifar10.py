# att2's baseline VGG-GAP: the same network, its last map averaged; tests every epoch
_base_ = './att2_vgg_cifar10.py'

model = dict(
    head=dict(_delete_=True, type='GAPHead', num_classes=10),
)
