"""Using trained models: predicting files of images, exporting and publishing what was trained."""
