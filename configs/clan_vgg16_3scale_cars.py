# CLAN in three scales on VGG-16 (Table 6): conv4_3, conv5_2 and the last pooling; tests every epoch
_base_ = './clan_vgg16_cars.py'

model = dict(head=dict(taps=3))
