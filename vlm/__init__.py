"""Small vision-language models in one batch: the library, without Ray and without HTTP."""
