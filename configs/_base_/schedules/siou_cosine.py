# ICASC, sections 4.1 and 4.3, Caltech-256 and VOC: SGD, momentum 0.9, weight decay 1e-3, rate 0.01
# along one cosine over 20 epochs, step by step. Batch 64: the paper gives none.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=1e-3),
)
param_scheduler = dict(
    type='CosineAnnealingLR', by_epoch=True, T_max=20, eta_min=0.0, convert_to_iter_based=True
)
train_cfg = dict(by_epoch=True, max_epochs=20, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=64, enable=False)
