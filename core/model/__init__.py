"""The model: masks and token counts as pure functions, the three-part decoder, the denoising head."""
