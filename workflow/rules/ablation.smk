# Grids of experiments: config/ablations/NAME.yaml becomes experiments, their scores become one table.


rule compare_ablation:
    input:
        unpack(inputs_of_ablation),
    output:
        csv=f"{RESULTS}/ablations/{{ablation}}/summary.csv",
        html=report(
            f"{RESULTS}/ablations/{{ablation}}/summary.html",
            category="Ablations",
            subcategory="{ablation}",
            labels={"page": "scores"},
            caption="../report/ablation_table.rst",
        ),
        plot=report(
            f"{RESULTS}/ablations/{{ablation}}/summary.png",
            category="Ablations",
            subcategory="{ablation}",
            labels={"page": "plot"},
            caption="../report/ablation_plot.rst",
        ),
    log:
        f"{LOGS}/ablations/compare_ablation_{{ablation}}.log",
    localrule: True
    params:
        slice=slice_json_of_ablation,
    shell:
        f"{JOB} compare_ablation"
        " --metrics {input.metrics:q} --states {input.states:q} --slice {params.slice:q}"
        " --html {output.html:q} --plot {output.plot:q} --out {output.csv:q} --log {log:q}"
