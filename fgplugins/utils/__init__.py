"""What the rooms above share: looking at a model, drawing, what is shipped with the package."""
