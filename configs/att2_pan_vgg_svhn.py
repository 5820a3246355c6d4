# att2, Table 2, "VGG-PAN" (appendix A.2): layer 10 gated, attention at layer 13; tests every epoch
_base_ = './att2_vgg_svhn.py'

model = dict(backbone=dict(progressive=True), head=dict(taps=1))
