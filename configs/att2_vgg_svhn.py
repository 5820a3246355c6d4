# att2, Table 2, SVHN: (VGG-att2)-concat-pc, initial rate 0.1 (appendix A.3); tests every epoch
_base_ = [
    '_base_/datasets/svhn.py',
    '_base_/schedules/att2_vgg.py',
    '_base_/default_runtime.py',
]

optim_wrapper = dict(optimizer=dict(lr=0.1))
model = dict(
    type='FineGrainedClassifier',
    backbone=dict(type='TimmNetwork', model_name='att_vgg', head='mean'),
    head=dict(type='Att2Head', num_classes=10, taps=2, pool_first=True),
)
