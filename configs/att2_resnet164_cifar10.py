# att2, appendix A.2 and A.3: RN-att2 on ResNet-164; tests every epoch
# Batch 64, rate 0.1 times 0.2 at 60, 120, 160; dropout 0.3 (official code)
_base_ = [
    '_base_/datasets/cifar10.py',
    '_base_/schedules/cifar_wrn.py',
    '_base_/default_runtime.py',
]

train_dataloader = dict(batch_size=64)
auto_scale_lr = dict(base_batch_size=64)
optim_wrapper = dict(optimizer=dict(nesterov=False))
model = dict(
    type='FineGrainedClassifier',
    backbone=dict(type='TimmNetwork', model_name='preact_resnet164', head='mean'),
    head=dict(type='Att2Head', num_classes=10, taps=2, dropout=0.3),
)
