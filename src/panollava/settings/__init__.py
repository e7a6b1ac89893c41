"""What settings are made of: sections, types of values, and the words of their errors.

The settings themselves: a model's in `settings.model`, all in `config.schema`.
"""
