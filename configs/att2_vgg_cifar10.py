# att2, Table 1, (VGG-att2)-concat-pc; tests every epoch
# Other rows by --cfg-options, as model.head.compat=dp, model.head.classify=indep
_base_ = [
    '_base_/datasets/cifar_flip.py',
    '_base_/schedules/att2_vgg.py',
    '_base_/default_runtime.py',
]

model = dict(
    type='FineGrainedClassifier',
    backbone=dict(type='TimmNetwork', model_name='att_vgg', head='mean'),
    head=dict(type='Att2Head', num_classes=10, taps=2, pool_first=True),
)
