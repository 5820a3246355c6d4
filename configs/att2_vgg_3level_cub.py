# att2, (VGG-att3)-concat-pc: layers 7, 10 and 13
_base_ = './att2_vgg_cub.py'

model = dict(head=dict(taps=3))
