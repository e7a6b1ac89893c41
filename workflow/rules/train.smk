# The three stages and what they leave behind.

for stage in STAGES:

    rule:
        name:
            f"train_{stage}"
        input:
            unpack(inputs_by_experiment(inputs.of_stage, stage)),
        output:
            best=f"{RUNS}/{{experiment}}/{stage}/{{variant}}/best.ckpt",
            last=f"{RUNS}/{{experiment}}/{stage}/{{variant}}/last.ckpt",
            history=f"{RUNS}/{{experiment}}/{stage}/{{variant}}/loss_curves.csv",
            curves=report(
                f"{RUNS}/{{experiment}}/{stage}/{{variant}}/loss_curves.png",
                category="Training",
                subcategory="{experiment}",
                labels={"stage": f"{STAGES.index(stage) + 1} {stage}"},
                caption="../report/loss_curves.rst",
            ),
            metadata=ensure(
                f"{RUNS}/{{experiment}}/{stage}/{{variant}}/checkpoint_metadata.json",
                non_empty=True,
            ),
        log:
            f"{LOGS}/{{experiment}}/train_{stage}_{{variant}}.log",
        threads: resource(options.threads)
        resources:
            gpu=gpus_of_training,
            mem_mb=grows(16000),
            runtime=1440,
            cpus_per_task=resource(options.cores),
        params:
            slice=sliced(f"train_{stage}"),
            options=untracked(options.of_stage, stage),
            train_views=folder_of_input("train_views"),
            val_views=folder_of_input("val_views"),
        shell:
            f"{JOB} train_stage"
            " {params.options}"
            " --train-csv {input.train_csv:q} --val-csv {input.val_csv:q}"
            " --train-views {params.train_views:q} --val-views {params.val_views:q}"
            " --slice {params.slice:q} --log {log:q}"


rule write_stage_state:
    input:
        inputs_by_experiment(inputs.of_stage_state),
    output:
        f"{RUNS}/{{experiment}}_stage_state.json",
    log:
        f"{LOGS}/{{experiment}}/write_stage_state.log",
    localrule: True
    params:
        slice=sliced_by(stage_state_slice),
        records=untracked(options.of_stage_state),
    shell:
        f"{JOB} write_stage_state"
        " --naming {params.records:q} --slice {params.slice:q} --out {output:q} --log {log:q}"


rule select_checkpoint:
    input:
        unpack(inputs_by_experiment(inputs.of_selection)),
    output:
        f"{RESULTS}/{{experiment}}/checkpoint.json",
    log:
        f"{LOGS}/{{experiment}}/select_checkpoint.log",
    localrule: True
    params:
        slice=sliced("select_checkpoint"),
        folder=folder_of_input("metadata"),
    shell:
        f"{JOB} select_checkpoint"
        " --folder {params.folder:q} --slice {params.slice:q}"
        " --out {output:q} --log {log:q}"
