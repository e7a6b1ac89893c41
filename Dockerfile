# panollava with everything its metrics need. Build: make docker-build. Run EXP1:
#   docker run --rm -v "$PWD/results:/panollava/results" panollava
FROM python:3.11-slim-bookworm

RUN apt-get update \
 && apt-get install -y --no-install-recommends git make default-jre-headless wordnet-base wordnet-sense-index \
 && rm -rf /var/lib/apt/lists/*

WORKDIR /panollava
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src ./src
RUN pip install --no-cache-dir uv && uv pip install --system --compile-bytecode -c constraints.txt -e . \
 && python -m compileall -q src

COPY Snakefile Makefile ./
COPY config ./config
COPY profiles ./profiles
COPY workflow ./workflow

ENTRYPOINT ["panollava"]
CMD ["run", "results/EXP1/metrics.json", "runs/EXP1_stage_state.json"]
