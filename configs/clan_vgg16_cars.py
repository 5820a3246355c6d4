# CLAN in two scales on VGG-16 with batch normalisation (Table 6): conv5_2 and the last pooling
_base_ = [
    '_base_/datasets/cars_448.py',
    '_base_/schedules/clan_vgg.py',
    '_base_/default_runtime.py',
]

model = dict(
    type='FineGrainedClassifier',
    backbone=dict(
        type='TIMMBackbone', model_name='clan_vgg16', features_only=True, out_indices=(1, 2)
    ),
    head=dict(type='CLANHead', num_classes=196, taps=2, inner_channels=256),
)
