# att2, Table 2, row "VGG": the ordinary VGG-16 for small images; tests every epoch
_base_ = './att2_vgg_cub.py'

model = dict(
    backbone=dict(
        _delete_=True, type='TimmNetwork', model_name='cifar_vgg16', pool_before_last=True
    ),
    head=dict(_delete_=True, type='GAPHead', num_classes=200),
)
pretrained_hint = (
    'train gap_vgg16_cifar100, then --pretrained work_dirs/gap_vgg16_cifar100/epoch_300.pth'
)
