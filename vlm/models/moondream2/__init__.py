"""Moondream 2: captions, questions, reasoning, detection and pointing (vikhyatk/moondream2).

Answers in fp32, greedy, are those of the original code, but for what was decided otherwise:

* Greedy by default; there, temperature 0.5 and top_p 0.3.
* A client's words never become marks; there, ``<|md_reserved_2|>`` in a question does.
* Images are turned upright by their EXIF orientation.
* An image has at most ``max_crops`` tiles; there, very long ones (from about 11.7:1) can have any number.
* What is thought and what is answered share ``max_tokens``, half each; there, each may have all of it.
* A thought does not begin with the end of text, which here would end the answer.
* Boxes are clipped to the image at the very end, and have scores; there, they may reach beyond it.
* What crashes the original is answered: thoughts beside references, or that begin with a coordinate.
* Images are resized by Pillow; there, by libvips where it is installed, whose upscaling differs visibly.
* A character whose bytes lie around a mark in a thought is one character.
* An answer streams as soon as its text is certain; there, word by word.
"""
