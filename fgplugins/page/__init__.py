"""The page of a comparison: what it found, and where each method looks, to be opened from disk.

`command` is the whole of it. `reading` takes a comparison's folder in, `choosing` picks the images
whose maps are computed, `looking` computes them, `pictures` makes thumbnails, `plots` places dots
and lines, `rendering` fills the templates, and `files` holds what is written.
"""
