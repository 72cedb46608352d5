"""Moondream 2: captions, questions, reasoning, detection and pointing (vikhyatk/moondream2).

Greedy answers in fp32 are those of the code in the model's repository ("the original"), except for these decisions:

* Decoding is greedy by default; the original samples at temperature 0.5 and top_p 0.3.
* A client's text never becomes a special token; in the original, ``<|md_reserved_2|>`` in a question does.
* Images are turned upright by their EXIF orientation.
* An image has at most ``max_crops`` tiles; in the original, very long ones (from about 11.7:1) have any number.
* Reasoning and answer share ``max_tokens``, half each; in the original, each may have that many.
* Reasoning does not begin with the end of text, which here would end the answer.
* Boxes are clipped to the image and have scores; in the original they may extend beyond it.
* Requests that crash the original are answered: reasoning with references, and reasoning that begins with a coordinate.
* Images are resized by Pillow; the original uses libvips if it is installed, which upscales visibly differently.
* In reasoning, a character whose bytes lie on both sides of a special token is one character.
* An answer is streamed as soon as its text is certain; the original streams word by word.
"""
