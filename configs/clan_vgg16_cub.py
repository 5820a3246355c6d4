# CLAN in two scales on VGG-16 (Table 6): conv5_2 and the last pooling; tests every epoch
# With batch normalisation, by Table 5.
_base_ = [
    '_base_/datasets/fine_grained_448.py',
    '_base_/schedules/clan_vgg.py',
    '_base_/default_runtime.py',
]

model = dict(
    type='FineGrainedClassifier',
    backbone=dict(type='TimmNetwork', model_name='clan_vgg16', head='mean'),
    head=dict(type='CLANHead', num_classes=200, taps=2, inner_channels=256),
)
