# The control: ResNet-50 fine-tuned with WARN's recipe; tests every epoch
_base_ = [
    '_base_/datasets/cub_224.py',
    '_base_/schedules/finetune_warn.py',
    '_base_/default_runtime.py',
]

model = dict(
    type='FineGrainedClassifier',
    backbone=dict(type='ResNet', depth=50, out_indices=(3,)),
    head=dict(type='GAPHead', num_classes=200),
)
# tools/train.py --pretrained loads these into the backbone; nothing is downloaded without it
pretrained_weights = 'torchvision://resnet50'
