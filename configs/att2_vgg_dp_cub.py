# att2, (VGG-att2)-concat-dp on CUB, which a query can ask; tests every epoch
_base_ = './att2_vgg_cub.py'

model = dict(head=dict(compat='dp'))
pretrained_hint = (
    'train att2_vgg_dp_cifar100, then --pretrained work_dirs/att2_vgg_dp_cifar100/epoch_300.pth'
)
