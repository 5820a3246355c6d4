# Cluttered translated digits, made from scikit-learn's or (--data-root) MNIST's: WARN, section 4.1.
# The three splits are made of different digits
data_preprocessor = dict(num_classes=10, mean=[0.0], std=[255.0], to_rgb=False)

pipeline = [
    dict(type='LoadImage', color_type='grayscale'),
    dict(type='Resize', scale=(40, 40)),
    dict(type='PackInputs'),
]
dataset = dict(type='ClutteredDigits', distractors=8, canvas=40, pipeline=pipeline)

train_dataloader = dict(
    batch_size=128,
    num_workers=1,
    dataset=dict(split='train', num_images=20000, **dataset),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=250,
    num_workers=1,
    dataset=dict(split='val', num_images=2000, **dataset),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
test_dataloader = dict(
    batch_size=250,
    num_workers=1,
    dataset=dict(split='test', num_images=5000, **dataset),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
val_evaluator = dict(type='Accuracy', topk=(1,))
test_evaluator = val_evaluator
