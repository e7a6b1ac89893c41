# Answers, their blind control, and the numbers.


rule predict:
    input:
        unpack(inputs_by_experiment(inputs.of_prediction, "predict")),
    output:
        f"{RESULTS}/{{experiment}}/predictions.csv",
    log:
        f"{LOGS}/{{experiment}}/predict.log",
    resources:
        gpu=1,
        mem_mb=grows(16000),
        runtime=grows(240),
        cpus_per_task=resource(options.cores),
    params:
        slice=sliced("predict"),
        options=untracked(options.of_prediction, "predict"),
    shell:
        f"{JOB} predict"
        " {params.options} --checkpoint {input.checkpoint:q} --csv {input.csv:q}"
        " --slice {params.slice:q} --out {output:q} --log {log:q}"


use rule predict as predict_blind with:
    input:
        unpack(inputs_by_experiment(inputs.of_prediction, "predict_blind")),
    output:
        f"{RESULTS}/{{experiment}}/predictions_blind.csv",
    log:
        f"{LOGS}/{{experiment}}/predict_blind.log",
    params:
        slice=sliced("predict_blind"),
        options=untracked(options.of_prediction, "predict_blind"),


# Further scores (evaluation.extra): each is planned only for experiments that ask for it.
rule predict_rolled:
    input:
        unpack(inputs_by_experiment(inputs.of_prediction, "predict_rolled")),
    output:
        f"{RESULTS}/{{experiment}}/predictions_rolled.csv",
    log:
        f"{LOGS}/{{experiment}}/predict_rolled.log",
    resources:
        gpu=1,
        mem_mb=grows(16000),
        runtime=grows(240),
        cpus_per_task=resource(options.cores),
    params:
        slice=sliced("predict_rolled"),
        options=untracked(options.of_prediction, "predict_rolled"),
    shell:
        f"{JOB} predict_rolled"
        " {params.options} --checkpoint {input.checkpoint:q} --csv {input.csv:q}"
        " --slice {params.slice:q} --out {output:q} --log {log:q}"


rule measure_perplexity:
    input:
        unpack(inputs_by_experiment(inputs.of_prediction, "measure_perplexity")),
    output:
        f"{RESULTS}/{{experiment}}/measures/perplexity.json",
    log:
        f"{LOGS}/{{experiment}}/measure_perplexity.log",
    resources:
        gpu=1,
        mem_mb=grows(16000),
        runtime=grows(120),
        cpus_per_task=resource(options.cores),
    params:
        slice=sliced("measure_perplexity"),
        options=untracked(options.of_prediction, "measure_perplexity"),
    shell:
        f"{JOB} measure_perplexity"
        " {params.options} --checkpoint {input.checkpoint:q} --csv {input.csv:q}"
        " --slice {params.slice:q} --out {output:q} --log {log:q}"


rule measure_overlap:
    input:
        unpack(inputs_by_experiment(inputs.of_prediction, "measure_overlap")),
    output:
        scores=f"{RESULTS}/{{experiment}}/measures/overlap.json",
        plot=report(
            f"{RESULTS}/{{experiment}}/measures/overlap.png",
            category="Metrics",
            subcategory="{experiment}",
            labels={"page": "agreement of overlapping views"},
            caption="../report/overlap.rst",
        ),
    log:
        f"{LOGS}/{{experiment}}/measure_overlap.log",
    resources:
        gpu=1,
        mem_mb=grows(16000),
        runtime=grows(60),
        cpus_per_task=resource(options.cores),
    params:
        slice=sliced("measure_overlap"),
        options=untracked(options.of_prediction, "measure_overlap"),
    shell:
        f"{JOB} measure_overlap"
        " {params.options} --checkpoint {input.checkpoint:q} --csv {input.csv:q}"
        " --slice {params.slice:q} --out {output.scores:q} --plot {output.plot:q} --log {log:q}"


rule compute_metrics:
    input:
        unpack(inputs_of_metrics),
    output:
        metrics=f"{RESULTS}/{{experiment}}/metrics.json",
        table=report(
            f"{RESULTS}/{{experiment}}/report_metrics.html",
            category="Metrics",
            subcategory="{experiment}",
            labels={"page": "scores, blind control"},
            caption="../report/metrics.rst",
        ),
        samples=report(
            f"{RESULTS}/{{experiment}}/report_samples.html",
            category="Predictions",
            subcategory="{experiment}",
            labels={"page": "panoramas, answers"},
            caption="../report/samples.rst",
        ),
    log:
        f"{LOGS}/{{experiment}}/compute_metrics.log",
    resources:
        mem_mb=grows(12000),
        runtime=grows(60),
    params:
        slice=sliced("metrics"),
        options=metrics_options,
    shell:
        f"{JOB} compute_metrics"
        " --predictions {input.predictions:q} {params.options}"
        " --checkpoint {input.checkpoint:q} --slice {params.slice:q} --out {output.metrics:q}"
        " --html {output.table:q} --samples {output.samples:q} --log {log:q}"


rule compare:
    input:
        unpack(planned(lambda w: inputs.of_comparison(PROJECT, PRESENT))),
    output:
        csv=f"{RESULTS}/comparison.csv",
        html=report(
            f"{RESULTS}/comparison.html",
            category="Comparison",
            labels={"page": "scores, tests, answers"},
            caption="../report/comparison.rst",
        ),
    log:
        f"{LOGS}/shared/compare.log",
    localrule: True
    params:
        slice=slice_json_of_comparison,
    shell:
        f"{JOB} compare"
        " --metrics {input.metrics:q} --slice {params.slice:q} --out {output.csv:q} --html {output.html:q}"
        " --log {log:q}"
