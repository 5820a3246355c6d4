# att2, (VGG-att3)-concat-pc: layers 7, 10 and 13; tests every epoch
_base_ = './att2_vgg_cub.py'

model = dict(head=dict(taps=3))
pretrained_hint = (
    'train att2_vgg_3level_cifar100, then --pretrained '
    'work_dirs/att2_vgg_3level_cifar100/epoch_300.pth'
)
