# WARN, section 4.2, the baseline of Figure 4 in the long form: 200 epochs on 200,000 images
_base_ = [
    '_base_/datasets/digits_200k.py',
    '_base_/schedules/digits_200.py',
    '_base_/default_runtime.py',
]

model = dict(
    type='FineGrainedClassifier',
    backbone=dict(type='TimmNetwork', model_name='clutter_cnn_2fc', in_channels=1),
    head=dict(type='GAPHead', num_classes=10),
)
