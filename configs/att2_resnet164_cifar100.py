# att2, appendix A.2 and A.3: RN-att2 on ResNet-164, batch 64, rate 0.1 times 0.2 at 60, 120, 160
_base_ = [
    '_base_/datasets/cifar100.py',
    '_base_/schedules/cifar_wrn.py',
    '_base_/default_runtime.py',
]

train_dataloader = dict(batch_size=64)
auto_scale_lr = dict(base_batch_size=64)
optim_wrapper = dict(optimizer=dict(nesterov=False))
model = dict(
    type='FineGrainedClassifier',
    backbone=dict(
        type='TIMMBackbone', model_name='preact_resnet164', features_only=True, out_indices=(1, 2)
    ),
    head=dict(type='Att2Head', num_classes=100, taps=2),
)
