# ICASC, Table 3, "VGG-19 + A_ch": conv4_4 and the pooled conv5_4. VGG's own classifier has three
# layers; here, as on every backbone, the last map is averaged and classified by one.
# Weights of timm's vgg19: --pretrained FILE
_base_ = './siou_r18_caltech256.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='TIMMBackbone',
        model_name='vgg19',
        features_only=True,
        out_indices=(3, 5),
    )
)
pretrained_weights = None
