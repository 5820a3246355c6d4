# att2, Table 2, row "VGG": the ordinary VGG-16 for small images; tests every epoch
_base_ = './att2_vgg_svhn.py'

model = dict(
    backbone=dict(_delete_=True, type='TimmNetwork', model_name='cifar_vgg16'),
    head=dict(_delete_=True, type='GAPHead', num_classes=10),
)
