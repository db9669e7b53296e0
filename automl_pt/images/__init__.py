"""From one image file to pixels: opened, converted, resized, always by the same rule."""
