# att2, Table 2, row "VGG-GAP": the same network, its last map averaged; tests every epoch
_base_ = './att2_vgg_svhn.py'

model = dict(head=dict(_delete_=True, type='GAPHead', num_classes=10))
