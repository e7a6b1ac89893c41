# Answers, their blind control, and the numbers.


# Planned where evaluation.shards is more than 1; then the rules below join the parts.
rule predict_shard:
    input:
        unpack(inputs_of("predict_shard")),
    output:
        **outputs_of("predict_shard"),
    log:
        log_of("predict_shard"),
    benchmark:
        benchmark_of("predict_shard")
    resources:
        **resources_of("predict_shard"),
    params:
        **params_of("predict_shard"),
    shell:
        script("predict_shard")


rule predict:
    input:
        unpack(inputs_of("predict")),
    output:
        **outputs_of("predict"),
    log:
        log_of("predict"),
    benchmark:
        benchmark_of("predict")
    resources:
        **resources_of("predict"),
    params:
        **params_of("predict"),
    shell:
        script("predict")


rule predict_blind:
    input:
        unpack(inputs_of("predict_blind")),
    output:
        **outputs_of("predict_blind"),
    log:
        log_of("predict_blind"),
    benchmark:
        benchmark_of("predict_blind")
    resources:
        **resources_of("predict_blind"),
    params:
        **params_of("predict_blind"),
    shell:
        script("predict_blind")


# Planned for test sets that have questions with right answers, or where evaluation.text_only_control asks for it.
rule predict_text_only:
    input:
        unpack(inputs_of("predict_text_only")),
    output:
        **outputs_of("predict_text_only"),
    log:
        log_of("predict_text_only"),
    benchmark:
        benchmark_of("predict_text_only")
    resources:
        **resources_of("predict_text_only"),
    params:
        **params_of("predict_text_only"),
    shell:
        script("predict_text_only")


# Further scores (evaluation.extra): each is planned only for experiments that ask for it.
rule predict_rolled:
    input:
        unpack(inputs_of("predict_rolled")),
    output:
        **outputs_of("predict_rolled"),
    log:
        log_of("predict_rolled"),
    benchmark:
        benchmark_of("predict_rolled")
    resources:
        **resources_of("predict_rolled"),
    params:
        **params_of("predict_rolled"),
    shell:
        script("predict_rolled")


rule measure_perplexity:
    input:
        unpack(inputs_of("measure_perplexity")),
    output:
        **outputs_of("measure_perplexity"),
    log:
        log_of("measure_perplexity"),
    benchmark:
        benchmark_of("measure_perplexity")
    resources:
        **resources_of("measure_perplexity"),
    params:
        **params_of("measure_perplexity"),
    shell:
        script("measure_perplexity")


rule measure_overlap:
    input:
        unpack(inputs_of("measure_overlap")),
    output:
        **outputs_of("measure_overlap"),
    log:
        log_of("measure_overlap"),
    benchmark:
        benchmark_of("measure_overlap")
    resources:
        **resources_of("measure_overlap"),
    params:
        **params_of("measure_overlap"),
    shell:
        script("measure_overlap")


# A language model's scores of the answers: planned where evaluation.judge names one.
rule judge:
    input:
        unpack(inputs_of("judge")),
    output:
        **outputs_of("judge"),
    log:
        log_of("judge"),
    benchmark:
        benchmark_of("judge")
    resources:
        **resources_of("judge"),
    params:
        **params_of("judge"),
    shell:
        script("judge")


rule compute_metrics:
    input:
        unpack(inputs_of("compute_metrics")),
    output:
        **outputs_of("compute_metrics"),
    log:
        log_of("compute_metrics"),
    benchmark:
        benchmark_of("compute_metrics")
    resources:
        **resources_of("compute_metrics"),
    params:
        **params_of("compute_metrics"),
    shell:
        script("compute_metrics")


rule compare:
    input:
        unpack(inputs_of("compare")),
    output:
        **outputs_of("compare"),
    log:
        log_of("compare"),
    benchmark:
        benchmark_of("compare")
    localrule: True
    params:
        **params_of("compare"),
    shell:
        script("compare")
