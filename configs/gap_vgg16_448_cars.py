# CLAN, Table 6, "VGG-16", by the recipe of CLAN; tests every epoch
_base_ = './clan_vgg16_cars.py'

model = dict(head=dict(_delete_=True, type='GAPHead', num_classes=196))
