# WARN on the five-convolution network, its best setting of section 4.2: AD = 4, AW = 4
_base_ = './gap_cnn_digits.py'

model = dict(head=dict(type='WARNHead', taps=4, heads=4))
