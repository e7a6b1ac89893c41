# Miniature backbones: built, pre-trained and saved as Hugging Face folders; shared by content.
# The longest jobs of EXP1, one core each: they start first, side by side.


rule pretrain_vision:
    output:
        **outputs_of("pretrain_vision"),
    log:
        log_of("pretrain_vision"),
    benchmark:
        benchmark_of("pretrain_vision")
    priority: 10
    resources:
        **resources_of("pretrain_vision"),
    params:
        **params_of("pretrain_vision"),
    shell:
        script("pretrain_vision")


rule pretrain_language:
    output:
        **outputs_of("pretrain_language"),
    log:
        log_of("pretrain_language"),
    benchmark:
        benchmark_of("pretrain_language")
    priority: 20
    resources:
        **resources_of("pretrain_language"),
    params:
        **params_of("pretrain_language"),
    shell:
        script("pretrain_language")


rule pretrain_vlm:
    output:
        **outputs_of("pretrain_vlm"),
    log:
        log_of("pretrain_vlm"),
    benchmark:
        benchmark_of("pretrain_vlm")
    priority: 20
    resources:
        **resources_of("pretrain_vlm"),
    params:
        **params_of("pretrain_vlm"),
    shell:
        script("pretrain_vlm")
