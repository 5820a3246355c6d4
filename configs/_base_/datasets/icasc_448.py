# ICASC, section 4.2: images resized to 448 x 448 for training and testing; random crops and mirrors
# in training. It does not say what is cropped: here 448 x 448 of 512 x 512, as for other methods
_base_ = './fine_grained_448.py'

test_pipeline = [
    dict(type='LoadImage'),
    dict(type='Resize', scale=(448, 448)),
    dict(type='PackInputs'),
]
train_dataloader = dict(batch_size=10)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
