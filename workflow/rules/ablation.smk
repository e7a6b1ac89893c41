# Grids of experiments: config/ablations/NAME.yaml becomes experiments, their scores become one table.


rule compare_ablation:
    input:
        unpack(inputs_of("compare_ablation")),
    output:
        **outputs_of("compare_ablation"),
    log:
        log_of("compare_ablation"),
    benchmark:
        benchmark_of("compare_ablation")
    localrule: True
    params:
        **params_of("compare_ablation"),
    shell:
        script("compare_ablation")
