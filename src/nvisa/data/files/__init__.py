"""The user's own files: arrays, tables and folders of images, as rows."""
