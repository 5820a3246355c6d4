# PASCAL VOC 2012, images of several classes, by MMPretrain's own data set. ICASC, section 4.3, has
# its AP from the evaluation server, whose labels are not published, and does not say what it trains
# on: here 'train' is trained on and 'val' tested on. AP is the area under the curve as it is,
# without the server's interpolation. Difficult objects do not count, as on the server. Crops and
# mirrors: the paper names none.
_base_ = './short_edge_224.py'

data_preprocessor = dict(num_classes=20, to_onehot=True)
test_pipeline = [
    dict(type='LoadImage'),
    dict(type='ResizeEdge', scale=256, edge='short'),
    dict(type='CenterCrop', crop_size=224),
    dict(
        type='PackInputs',
        meta_keys=('sample_idx', 'img_path', 'ori_shape', 'img_shape', 'gt_label_difficult'),
    ),
]
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='VOC',
        data_root='data/VOC2012',
        split='train',
        pipeline={{_base_.train_pipeline}},
    )
)
val_dataloader = dict(
    dataset=dict(
        _delete_=True, type='VOC', data_root='data/VOC2012', split='val', pipeline=test_pipeline
    )
)
test_dataloader = dict(
    dataset=dict(
        _delete_=True, type='VOC', data_root='data/VOC2012', split='val', pipeline=test_pipeline
    )
)
val_evaluator = [
    dict(type='VOCAveragePrecision'),
    dict(type='MultiLabelAUC'),
]
test_evaluator = val_evaluator
