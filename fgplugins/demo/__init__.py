"""A page on this machine: drop an image, see what several trained models make of it.

`looking` says what one model makes of an image, `page` shows it, `server` serves the page and keeps
Gradio from asking anybody else.
"""
