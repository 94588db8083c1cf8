"""How the page looks."""

from __future__ import annotations

import gradio as gr

FONTS = [
    gr.themes.Font("system-ui"),
    gr.themes.Font("-apple-system"),
    gr.themes.Font("Segoe UI"),
    gr.themes.Font("sans-serif"),
]
MONO = [gr.themes.Font("ui-monospace"), gr.themes.Font("Menlo"), gr.themes.Font("monospace")]


def theme() -> gr.themes.Base:
    """Soft, indigo, system fonts: nothing is loaded from elsewhere."""
    return gr.themes.Soft(
        primary_hue="indigo", secondary_hue="violet", neutral_hue="slate", font=FONTS, font_mono=MONO
    ).set(
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_text_color="white",
        body_text_color_subdued="*neutral_500",  # 400 is too pale to read on white
    )


CSS = """
#header h1 { margin: 0.2em 0 0.1em; font-size: 1.7em; }
#header p { margin: 0.15em 0; color: var(--body-text-color-subdued); }
#weights { border-left: 3px solid var(--color-accent); padding: 0.35em 0.8em; border-radius: 4px;
  background: var(--background-fill-secondary); font-size: 0.92em; }
#memory { font-size: 0.85em; color: var(--body-text-color-subdued); }
#video-expected p { margin: 0; font-size: 0.9em; color: var(--body-text-color-subdued); }
#video-expected p.too-large { color: var(--error-text-color, #b91c1c); font-weight: 600; }
/* a stop that crosses its own answer makes Gradio mark the outputs as failed;
   hidden marks are hidden from readers too */
[data-testid="status-tracker"].hide { display: none; }
.status { min-height: 1.4em; font-size: 0.9em; color: var(--body-text-color-subdued); }
.chatbot-box { min-height: 320px; }
/* it would upload the visitor's clip to another host */
.chatbot-box button[aria-label="Share"] { display: none; }
#preview figure { margin: 0; }
#preview .screen { position: relative; width: 100%; aspect-ratio: var(--ratio, 1); max-height: 62dvh;
  margin: 0 auto; border-radius: var(--radius-lg); overflow: hidden;
  background: var(--background-fill-secondary); display: flex; align-items: center; justify-content: center; }
#preview figure.done .screen, #preview figure.done .bar { display: none; }
#preview img { width: 100%; height: 100%; object-fit: contain; }
#preview .hint { color: var(--body-text-color-subdued); padding: 1em; text-align: center; }
#preview .bar { height: 8px; border-radius: 4px; margin: 10px 0 4px; overflow: hidden;
  background: var(--border-color-primary); }
#preview .bar div { height: 100%; background: var(--color-accent); transition: width 0.2s; }
#preview figcaption { font-size: 0.9em; color: var(--body-text-color-subdued); min-height: 1.4em; }
#seed-row button { min-width: 3em; }
"""

# rules above the page's own root, which Gradio's css= cannot reach
HEAD = """<style>
.gradio-container { max-width: 1180px; margin: 0 auto; }
@media (max-width: 640px) {
  .gradio-container .main.fillable { padding: 8px !important; }
  .gradio-container .tab-container button { padding: 0 5px !important; font-size: 13px !important; }
  .gradio-container #header h1 { font-size: 1.35em; }
  .gradio-container #weights { font-size: 0.8em; }
  .gradio-container #memory { font-size: 0.72em; }
  /* one column in the order of use: prompt, clip, settings */
  .gradio-container #video-row { flex-direction: column; }
  .gradio-container #video-form { display: contents; }
  .gradio-container #video-outcome { order: 1; }
  .gradio-container #video-settings { order: 2; }
}
</style>"""
