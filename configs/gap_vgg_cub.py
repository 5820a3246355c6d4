# att2, Table 2, row "VGG-GAP": the same network, its last map averaged; tests every epoch
_base_ = './att2_vgg_cub.py'

model = dict(head=dict(_delete_=True, type='GAPHead', num_classes=200))
pretrained_hint = (
    'train gap_vgg_cifar100, then --pretrained work_dirs/gap_vgg_cifar100/epoch_300.pth'
)
