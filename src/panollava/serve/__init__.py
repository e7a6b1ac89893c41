"""A page to try a trained model: for a panorama and a question it shows the answer and the views behind it.

`examples` (panoramas to begin with) and `answering` (model work, no page) are imported by `page`, which needs gradio
(extra `serve`). `pano_view.js` lets a person look around in the browser.
"""
