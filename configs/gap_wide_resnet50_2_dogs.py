# WARN, Table 3, row "WRN", Dogs; tests every epoch
_base_ = './warn_wide_resnet50_2_dogs.py'

model = dict(head=dict(_delete_=True, type='GAPHead', num_classes=120))
