"""Settings of the embedded default: the data that the project draws, the backbones that it builds."""

from __future__ import annotations

from typing import Literal

from panollava.settings.section import Section, key

QuestionType = Literal["text", "yes_no", "choice", "number", "direction"]


class SyntheticSettings(Section):
    """How much to draw. A panorama is twice as wide as high.

    Training asks `train_queries` questions about each scene, with `train_annotations` references each; validation
    and test hold every question of their scenes with all references.
    """

    question_types: list[QuestionType] = key(
        ["text"],
        "Kinds of questions: text (captions), yes_no, choice, number, direction. The miniature language model learns "
        "to answer them too.",
        min_length=1,
    )
    seed: int = key(0, "Seed of the drawn scenes: the same seed gives the same bytes.", ge=0)
    train_scenes: int = key(1200, "Number of training panoramas.", ge=1, typical="[100, 2000]")
    val_scenes: int = key(60, "Number of validation panoramas.", ge=1, typical="[20, 200]")
    test_scenes: int = key(100, "Number of test panoramas.", ge=1, typical="[50, 500]")
    image_height: int = key(256, "Height of a panorama in pixels; its width is twice that.", ge=16, le=8192)
    train_queries: int = key(8, "Questions asked about each training panorama.", ge=1, le=100)
    train_annotations: int = key(1, "Annotations written for each training question.", ge=1, le=100)


class MiniatureVisionSettings(Section):
    """A SigLIP-type vision encoder that learns to say what each patch shows.

    `views` pictures of random scenes are drawn once and mirrored at random; `batch_size` of them make a step.
    """

    seed: int = key(0, "Seed of the vision encoder's weights and pre-training.", ge=0)
    hidden_size: int = key(128, "Width of the encoder; a multiple of 2 * heads.", ge=1)
    intermediate_size: int = key(256, "Width of its feed-forward layers.", ge=1)
    layers: int = key(4, "Number of its blocks.", ge=1)
    heads: int = key(4, "Number of attention heads.", ge=1)
    image_size: int = key(64, "Height and width of its input in pixels; a multiple of patch_size.", ge=8)
    patch_size: int = key(16, "Height and width of a patch in pixels.", ge=1)
    views: int = key(6000, "Rendered views on which it is pre-trained.", ge=1)
    steps: int = key(600, "Optimiser steps of its pre-training.", ge=1)
    batch_size: int = key(64, "Views in a pre-training batch.", ge=1)
    lr: float = key(2e-3, "Peak learning rate of AdamW (embeddings, norms).", gt=0, le=1)
    muon_lr: float = key(0.015, "Peak learning rate of Muon (hidden matrices).", gt=0, le=1)


class MiniatureLanguageSettings(Section):
    """A Qwen3-type language model that learns to answer questions from notes about scenes.

    Training ends `decay_steps` after 65 % of each kind of answer are read rightly from unseen notes, at the latest at
    `max_steps`; it warns where that ended it, and less than `reading_accuracy` of all are right.
    """

    seed: int = key(0, "Seed of the language model's weights and pre-training.", ge=0)
    hidden_size: int = key(128, "Width of the model; a multiple of 2 * heads.", ge=1)
    intermediate_size: int = key(256, "Width of its feed-forward layers.", ge=1)
    layers: int = key(2, "Number of its blocks.", ge=1)
    heads: int = key(4, "Number of attention heads.", ge=1)
    head_dim: int = key(64, "Width of an attention head.", ge=1)
    max_steps: int = key(1500, "Cap on its pre-training steps.", ge=1)
    decay_steps: int = key(
        150, "Steps that follow once enough answers of each kind are right (see reading_accuracy).", ge=1
    )
    batch_size: int = key(32, "Texts in a pre-training batch.", ge=1)
    lr: float = key(3e-3, "Peak learning rate of AdamW (embeddings, norms).", gt=0, le=1)
    muon_lr: float = key(0.015, "Peak learning rate of Muon (hidden matrices).", gt=0, le=1)
    turns: int = key(4, "Most questions in one training text.", ge=1)
    most_copies: int = key(3, "How often a note may repeat a fact.", ge=1)
    picture_positions: int = key(160, "Token positions that a picture may take.", ge=0)
    reading_accuracy: float = key(
        0.95,
        "Share of all answers read rightly from unseen notes below which max_steps was too few. Training ends "
        "decay_steps after 65 % of each kind of answer are right, at the latest at max_steps.",
        gt=0,
        le=1,
    )


class MiniatureVlmSettings(Section):
    """A Qwen2.5-VL-type native model that learns to answer questions about pictures that look around.

    Its language part learns from descriptions of what each visual token shows, its vision part to give them of
    pictures, then both together; `scenes` are drawn once, five pictures each.
    """

    seed: int = key(0, "Seed of the native model's weights and pre-training.", ge=0)
    hidden_size: int = key(128, "Width of the language part; a multiple of 8 * heads.", ge=8)
    intermediate_size: int = key(256, "Width of its feed-forward layers.", ge=1)
    layers: int = key(2, "Number of its blocks.", ge=1)
    heads: int = key(2, "Number of attention heads, of the vision part too.", ge=1)
    vision_hidden_size: int = key(96, "Width of the vision part; a multiple of 4 * heads.", ge=4)
    vision_layers: int = key(2, "Number of its blocks.", ge=1)
    image_size: int = key(72, "Height and width of a picture in pixels; a multiple of 2 * patch_size.", ge=8)
    patch_size: int = key(12, "Height and width of a patch in pixels; 2 x 2 of them are a visual token.", ge=1)
    scenes: int = key(600, "Rendered scenes on which it is pre-trained.", ge=1)
    language_steps: int = key(450, "Cap on the steps in which the language part learns.", ge=1)
    vision_steps: int = key(300, "Steps in which the vision part learns.", ge=1)
    joint_steps: int = key(60, "Steps in which both learn together.", ge=1)
    batch_size: int = key(24, "Conversations in a batch.", ge=1)
    vision_batch_size: int = key(64, "Pictures in a batch of the vision part alone.", ge=1)
    turns: int = key(3, "Most questions in one conversation.", ge=1)
    lr: float = key(3e-3, "Peak learning rate of AdamW (embeddings, norms).", gt=0, le=1)
    muon_lr: float = key(0.015, "Peak learning rate of Muon (hidden matrices).", gt=0, le=1)


class MiniatureSettings(Section):
    vision: MiniatureVisionSettings = MiniatureVisionSettings()
    language: MiniatureLanguageSettings = MiniatureLanguageSettings()
    vlm: MiniatureVlmSettings = MiniatureVlmSettings()
