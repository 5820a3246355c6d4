# att2, Table 2, CUB: (VGG-att2)-concat-pc; tests every epoch
# It starts from all that was learned on CIFAR-100 but the classifier (appendix A.3, official code).
_base_ = [
    '_base_/datasets/cub_box_80.py',
    '_base_/schedules/att2_cub.py',
    '_base_/default_runtime.py',
]

model = dict(
    type='FineGrainedClassifier',
    backbone=dict(type='TimmNetwork', model_name='att_vgg', head='mean', first_pool=5),
    head=dict(type='Att2Head', num_classes=200, taps=2, pool_first=True),
)
pretrained_hint = (
    'train att2_vgg_cifar100, then --pretrained work_dirs/att2_vgg_cifar100/epoch_300.pth'
)
pretrained_leaves_out = ['head.method.norms.', 'head.method.classifier.']
