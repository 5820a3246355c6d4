# ILSVRC2012 in train/<class>/ and val/<class>/, by MMPretrain's own data set; the augmentation is
# that of its ResNets, since ICASC, section 4.1, names none
_base_ = './short_edge_224.py'

data_preprocessor = dict(num_classes=1000)
# tools/test.py --tta: the four corners and the centre, and their mirror images
tta_pipeline = [
    dict(type='LoadImage'),
    dict(type='ResizeEdge', scale=256, edge='short'),
    dict(
        type='TestTimeAug',
        transforms=[
            [
                dict(type='CornerCrop', crop_size=224, corner='top_left'),
                dict(type='CornerCrop', crop_size=224, corner='top_right'),
                dict(type='CornerCrop', crop_size=224, corner='bottom_left'),
                dict(type='CornerCrop', crop_size=224, corner='bottom_right'),
                dict(type='CenterCrop', crop_size=224),
            ],
            [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)],
            [dict(type='PackInputs')],
        ],
    ),
]
tta_model = dict(type='AverageClsScoreTTA')

train_dataloader = dict(
    batch_size=256,
    num_workers=8,
    dataset=dict(type='ImageNet', data_root='data/imagenet'),
)
val_dataloader = dict(
    batch_size=256,
    num_workers=8,
    dataset=dict(type='ImageNet', data_root='data/imagenet', split='val'),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=(1, 5))
test_evaluator = val_evaluator
