# Miniature backbones: built, pre-trained and saved as Hugging Face folders; shared by content.
# The longest jobs of EXP1, one core each: they start first, side by side.


rule pretrain_vision:
    output:
        config=f"{CACHE}/miniature/vision/{{key}}/config.json",
        weights=f"{CACHE}/miniature/vision/{{key}}/model.safetensors",
        processor=f"{CACHE}/miniature/vision/{{key}}/preprocessor_config.json",
    log:
        f"{LOGS}/shared/pretrain_vision_{{key}}.log",
    priority: 10
    resources:
        mem_mb=grows(4000),
        runtime=grows(60),
    params:
        slice=keyed("miniature_vision"),
        out=folder_of("weights"),
    shell:
        f"{JOB} pretrain_vision"
        " --slice {params.slice:q} --out {params.out:q} --log {log:q}"


rule pretrain_language:
    output:
        config=f"{CACHE}/miniature/language/{{key}}/config.json",
        weights=f"{CACHE}/miniature/language/{{key}}/model.safetensors",
        tokenizer=f"{CACHE}/miniature/language/{{key}}/tokenizer.json",
        tokenizer_config=f"{CACHE}/miniature/language/{{key}}/tokenizer_config.json",
    log:
        f"{LOGS}/shared/pretrain_language_{{key}}.log",
    priority: 20
    resources:
        mem_mb=grows(4000),
        runtime=grows(60),
    params:
        slice=keyed("miniature_language"),
        out=folder_of("weights"),
    shell:
        f"{JOB} pretrain_language"
        " --slice {params.slice:q} --out {params.out:q} --log {log:q}"
