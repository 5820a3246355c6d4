# One recipe for every method on a small pretrained backbone, tuned for none: AdamW, ten times the
# rate for the new layers, cosine over six epochs
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-4, weight_decay=0.05),
    paramwise_cfg=dict(custom_keys={'head.': dict(lr_mult=10)}),
    clip_grad=dict(max_norm=5),
)
param_scheduler = dict(
    type='CosineAnnealingLR', by_epoch=True, T_max=6, eta_min=1e-6, convert_to_iter_based=True
)
train_cfg = dict(by_epoch=True, max_epochs=6, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=32, enable=False)
