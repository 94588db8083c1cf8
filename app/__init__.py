"""The page: chat about pictures and clips, text to video, on one loaded model."""
