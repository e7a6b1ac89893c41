# The three stages and what they leave behind.


rule train_vision:
    input:
        unpack(inputs_of("train_vision")),
    output:
        **outputs_of("train_vision"),
    log:
        log_of("train_vision"),
    benchmark:
        benchmark_of("train_vision")
    threads: threads_of("train_vision")
    resources:
        **resources_of("train_vision"),
    params:
        **params_of("train_vision"),
    shell:
        script("train_vision")


rule train_resampler:
    input:
        unpack(inputs_of("train_resampler")),
    output:
        **outputs_of("train_resampler"),
    log:
        log_of("train_resampler"),
    benchmark:
        benchmark_of("train_resampler")
    threads: threads_of("train_resampler")
    resources:
        **resources_of("train_resampler"),
    params:
        **params_of("train_resampler"),
    shell:
        script("train_resampler")


rule train_finetune:
    input:
        unpack(inputs_of("train_finetune")),
    output:
        **outputs_of("train_finetune"),
    log:
        log_of("train_finetune"),
    benchmark:
        benchmark_of("train_finetune")
    threads: threads_of("train_finetune")
    resources:
        **resources_of("train_finetune"),
    params:
        **params_of("train_finetune"),
    shell:
        script("train_finetune")


rule write_stage_state:
    input:
        unpack(inputs_of("write_stage_state")),
    output:
        **outputs_of("write_stage_state"),
    log:
        log_of("write_stage_state"),
    benchmark:
        benchmark_of("write_stage_state")
    localrule: True
    params:
        **params_of("write_stage_state"),
    shell:
        script("write_stage_state")


rule select_checkpoint:
    input:
        unpack(inputs_of("select_checkpoint")),
    output:
        **outputs_of("select_checkpoint"),
    log:
        log_of("select_checkpoint"),
    benchmark:
        benchmark_of("select_checkpoint")
    localrule: True
    params:
        **params_of("select_checkpoint"),
    shell:
        script("select_checkpoint")
