"""The settings that every slice contains; later settings are part of a slice only where they differ from their default.

So a setting that joins the schema makes no result stale that was made before it was there. Nothing is ever added to
this list. Whoever changes the default of a later setting changes what older slices mean: raise the version of the
nodes that read it (`tests/unit/test_code_versions.py` asks for it).
"""

from __future__ import annotations

_BY_SECTION = {
    "data.columns": "image_path query annotation",
    "data": "max_rejected_fraction",
    "data.synthetic": "seed train_scenes val_scenes test_scenes image_height train_queries train_annotations",
    "models": """
        vision_name language_model_name resampler_type latent_dimension vicreg_projector_dim
        use_projection_positional_encoding trust_remote_code
    """,
    "models.qformer": "num_queries layers heads",
    "models.perceiver": "num_queries layers heads",
    "models.bimamba": "layers heads state_size expand",
    "models.miniature.vision": """
        seed hidden_size intermediate_size layers heads image_size patch_size views steps batch_size lr muon_lr
    """,
    "models.miniature.language": """
        seed hidden_size intermediate_size layers heads head_dim max_steps decay_steps batch_size lr muon_lr
        turns most_copies picture_positions reading_accuracy
    """,
    "image_processing": """
        crop_strategy fov_deg overlap_ratio image_size anyres_max_patches cubemap_poles antialias view_cache
        stitching_mode use_vision_processor
    """,
    "training": "seed devices strategy precision cpu_threads eval_batch_size cache_vision_features batches",
    "training.stage_configs.vision": """
        epochs batch_size accumulate_grad_batches optimizer lr muon_lr weight_decay warmup_ratio max_grad_norm
        max_text_length vision_trainable_blocks vicreg_loss_weight vicreg_mode vicreg_similarity_weight
        vicreg_variance_weight vicreg_covariance_weight loss densecl_temperature
    """,
    "training.stage_configs.resampler": """
        epochs batch_size accumulate_grad_batches optimizer lr muon_lr weight_decay warmup_ratio max_grad_norm
        max_text_length vision_trainable_blocks
    """,
    "training.stage_configs.finetune": """
        epochs batch_size accumulate_grad_batches optimizer lr muon_lr weight_decay warmup_ratio max_grad_norm
        max_text_length vision_trainable_blocks
    """,
    "lora": "use_lora rank alpha dropout target_modules use_rslora use_dora",
    "generation": "max_new_tokens do_sample temperature top_p",
    "evaluation": "metrics protocol blind_control extra custom_metrics bootstrap_samples",
    "system_messages": "default",
}

ALWAYS = frozenset(f"{section}.{name}" for section, names in _BY_SECTION.items() for name in names.split())
"""Dotted keys."""
