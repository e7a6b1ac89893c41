# Answers, their blind control, and the numbers.

for name, node, flags in (("predict", "predict", ""), ("predict_blind", "predict_blind", "--blind")):

    rule:
        name:
            name
        input:
            unpack(inputs_of_prediction),
        output:
            f"{RESULTS}/{{experiment}}/{'predictions' if name == 'predict' else 'predictions_blind'}.csv",
        params:
            slice=sliced(node),
            options=prediction_options(name, flags),
        log:
            f"{LOGS}/{{experiment}}/{name}.log",
        threads: 1
        resources:
            gpu=1,
        shell:
            "{JOB} predict {params.options} --checkpoint {input.checkpoint:q} --csv {input.csv:q}"
            " --slice {params.slice:q} --out {output:q} --log {log:q}"


rule compute_metrics:
    input:
        unpack(inputs_of_metrics),
    output:
        report(
            f"{RESULTS}/{{experiment}}/metrics.json",
            category="Metrics",
            caption="../report/metrics.rst",
        ),
    params:
        slice=sliced("metrics"),
        blind=blind_option,
    log:
        f"{LOGS}/{{experiment}}/compute_metrics.log",
    shell:
        "{JOB} compute_metrics --predictions {input.predictions:q} {params.blind}"
        " --checkpoint {input.checkpoint:q} --slice {params.slice:q} --out {output:q} --log {log:q}"


rule compare:
    input:
        planned(
            lambda w: [
                f"{RESULTS}/{name}/metrics.json" for name in PROJECT.default_experiments
            ]
        ),
    output:
        f"{RESULTS}/comparison.csv",
    log:
        f"{LOGS}/shared/compare.log",
    shell:
        "{JOB} compare --metrics {input:q} --out {output:q} --log {log:q}"
