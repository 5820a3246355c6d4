# tools/compare.py --quick: methods trained on the maps of a frozen backbone, all by this recipe.
# Rate and length are the control's best on validation images (docs/compare.md)
epochs = 30
batch_size = 64
lr = 5e-3
weight_decay = 0.05
max_norm = 5.0  # of the gradient

# what a method is built with, other than its defaults: a new part that starts silent, where it can
methods = dict(warn=dict(output_init='zero'))
