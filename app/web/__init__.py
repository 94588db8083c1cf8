"""The page, made of Gradio: widgets, wiring, and all Markdown and HTML that people see."""
