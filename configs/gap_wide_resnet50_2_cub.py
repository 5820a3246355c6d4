# WARN, Table 3, row "WRN", Birds; tests every epoch
_base_ = './warn_wide_resnet50_2_cub.py'

model = dict(head=dict(_delete_=True, type='GAPHead', num_classes=200))
