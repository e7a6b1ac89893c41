# Miniature backbones: built, pre-trained and saved as Hugging Face folders; shared by content.


rule pretrain_vision:
    output:
        multiext(
            f"{CACHE}/miniature/vision/{{key}}/",
            "config.json",
            "model.safetensors",
            "preprocessor_config.json",
        ),
    params:
        slice=keyed("miniature_vision"),
        out=subfolder(0),
    log:
        f"{LOGS}/shared/pretrain_vision_{{key}}.log",
    threads: 1
    shell:
        "{JOB} pretrain_vision --slice {params.slice:q} --out {params.out:q} --log {log:q}"


rule pretrain_language:
    output:
        multiext(
            f"{CACHE}/miniature/language/{{key}}/",
            "config.json",
            "model.safetensors",
            "tokenizer.json",
            "tokenizer_config.json",
        ),
    params:
        slice=keyed("miniature_language"),
        out=subfolder(0),
    log:
        f"{LOGS}/shared/pretrain_language_{{key}}.log",
    threads: 1
    shell:
        "{JOB} pretrain_language --slice {params.slice:q} --out {params.out:q} --log {log:q}"
