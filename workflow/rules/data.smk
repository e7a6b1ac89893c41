# Panoramas and CSVs: drawn or given, prepared, and cut into views. All results are shared by content.


rule draw_synthetic:
    output:
        csvs=expand(f"{CACHE}/synthetic/{{{{key}}}}/{{split}}.csv", split=SPLITS),
        scenes=f"{CACHE}/synthetic/{{key}}/scenes.json",
        images=directory(f"{CACHE}/synthetic/{{key}}/images"),
        sheet=report(
            f"{CACHE}/synthetic/{{key}}/contact_sheet.png",
            category="Data",
            labels={"data": "synthetic {key}"},
            caption="../report/contact_sheet.rst",
        ),
    log:
        f"{LOGS}/shared/draw_synthetic_{{key}}.log",
    resources:
        mem_mb=grows(4000),
        runtime=grows(60),
    params:
        slice=keyed("synthetic"),
        out=folder_of("sheet"),
    shell:
        f"{JOB} draw_synthetic"
        " --slice {params.slice:q} --out {params.out:q} --log {log:q}"


rule prepare_csv:
    input:
        inputs_by_key(inputs.of_csv),
    output:
        prepared=f"{CACHE}/csv/{{key}}/prepared.csv",
        rejected=f"{CACHE}/csv/{{key}}/rejected.csv",
    log:
        f"{LOGS}/shared/prepare_csv_{{key}}.log",
    resources:
        mem_mb=grows(4000),
        runtime=grows(240),
        # A profile allows one at a time: what is a polite number of requests in one job is none in three.
        downloads=1,
    params:
        slice=keyed("csv"),
        images=lambda w, output: PATHS.image_cache,
        # Snakemake deletes the outputs of a failed job; this copy says what was rejected and why.
        survivor=lambda w, output: f"{LOGS}/shared/rejected_{w.key}.csv",
    shell:
        f"{JOB} prepare_csv"
        " --csv {input:q} --slice {params.slice:q}"
        " --cache {params.images:q} --state {params.survivor:q}"
        " --out {output.prepared:q} --rejected {output.rejected:q} --log {log:q}"


rule prepare_experiment:
    input:
        inputs_by_experiment(inputs.of_prepared),
    output:
        csvs=expand(
            f"{RESULTS}/{{{{experiment}}}}/prepared/{{split}}.csv", split=SPLITS
        ),
        rejected=f"{RESULTS}/{{experiment}}/prepared/rejected.csv",
    log:
        f"{LOGS}/{{experiment}}/prepare_experiment.log",
    localrule: True
    params:
        slice=sliced_by(prepared_slice),
        out=folder_of("rejected"),
    shell:
        f"{JOB} gather_prepared"
        " --slice {params.slice:q} --out {params.out:q} --log {log:q}"


rule cache_views:
    input:
        unpack(inputs_by_key(inputs.of_views)),
    output:
        views=f"{CACHE}/views/{{key}}/views.npy",
        index=f"{CACHE}/views/{{key}}/index.json",
    log:
        f"{LOGS}/shared/cache_views_{{key}}.log",
    resources:
        mem_mb=grows(8000),
        runtime=grows(240),
    params:
        slice=keyed("views"),
        out=folder_of("index"),
        vision=folder_of_input("vision"),
    shell:
        f"{JOB} cache_views"
        " --csv {input.csv:q} --vision={params.vision:q}"
        " --slice {params.slice:q} --out {params.out:q} --log {log:q}"
