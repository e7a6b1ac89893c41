# Panoramas and CSVs: drawn or given, prepared, and cut into views. Nearly all results are shared by content.


rule draw_synthetic:
    output:
        **outputs_of("draw_synthetic"),
    log:
        log_of("draw_synthetic"),
    benchmark:
        benchmark_of("draw_synthetic")
    resources:
        **resources_of("draw_synthetic"),
    params:
        **params_of("draw_synthetic"),
    shell:
        script("draw_synthetic")


rule prepare_csv:
    input:
        unpack(inputs_of("prepare_csv")),
    output:
        **outputs_of("prepare_csv"),
    log:
        log_of("prepare_csv"),
    benchmark:
        benchmark_of("prepare_csv")
    resources:
        **resources_of("prepare_csv"),
    params:
        **params_of("prepare_csv"),
    shell:
        script("prepare_csv")


rule prepare_experiment:
    input:
        unpack(inputs_of("prepare_experiment")),
    output:
        **outputs_of("prepare_experiment"),
    log:
        log_of("prepare_experiment"),
    benchmark:
        benchmark_of("prepare_experiment")
    localrule: True
    params:
        **params_of("prepare_experiment"),
    shell:
        script("prepare_experiment")


rule cache_views:
    input:
        unpack(inputs_of("cache_views")),
    output:
        **outputs_of("cache_views"),
    log:
        log_of("cache_views"),
    benchmark:
        benchmark_of("cache_views")
    resources:
        **resources_of("cache_views"),
    params:
        **params_of("cache_views"),
    shell:
        script("cache_views")
