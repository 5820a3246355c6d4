# SVHN's cropped digits, with values between 0 and 1: att2, appendix A.1, normalises no colours
# here. No flips, since a mirrored digit is another one (the official script has them). The 531,131
# images of the "extra" part: --cfg-options train_dataloader.dataset.options.extra=True
_base_ = './cifar10.py'

data_preprocessor = dict(mean=[0.0, 0.0, 0.0], std=[255.0, 255.0, 255.0])
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='Resize', scale=(32, 32)),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    dataset=dict(data_root='data/svhn', pipeline=train_pipeline, options=dict(extra=False))
)
val_dataloader = dict(dataset=dict(data_root='data/svhn'))
test_dataloader = dict(dataset=dict(data_root='data/svhn'))
