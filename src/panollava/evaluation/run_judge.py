"""From predictions to what a judge makes of them: the job behind the rule `judge`, and its part of `panollava eval`.

Replies are kept by (judge, prompt, question, reference, answer), one JSON line each, written as soon as a batch is
done: a killed job goes on, another experiment's equal answers cost nothing, and a new way to read replies asks nobody
again. They are texts of the judge, not scores (`judging.reading`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from panollava.checkpoints.zero_shot import weights_digest
from panollava.config.schema import MINIATURE_LANGUAGE
from panollava.devices import first_device, language_dtype
from panollava.errors import ConfigError, EvaluationError, PromptTooLong
from panollava.evaluation.judging.asking import requests_of
from panollava.evaluation.judging.prompt import JudgePrompt, Request, key_of
from panollava.evaluation.judging.scores import Judged, measured
from panollava.evaluation.predictions import read_predictions, rows_of_control
from panollava.evaluation.protocols import apply_protocol
from panollava.files import digest_of, sha256_file, write_text
from panollava.locks import FolderLock
from panollava.logs import LOGGER
from panollava.memory import is_out_of_memory
from panollava.models.language import LanguageModel
from panollava.models.prompt import ChatPrompt

_LOG_EVERY = 25


@dataclass(frozen=True)
class JudgeJob:
    """`models` are one or two judges: what the configuration calls them, and where their weights are (hub id, folder).

    `prompt_file` None is the built-in prompt. The rest as in the configuration.
    """

    models: Mapping[str, str]
    prompt_file: Path | None
    max_new_tokens: int
    protocol: str | None
    batch_size: int
    precision: str
    trust_remote_code: bool = False


class KeptReplies:
    """Replies by their key, in a file that grows by a line each; one process at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.texts: dict[str, str] = {}
        if path.is_file():
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            for line in lines:
                try:
                    key, text = json.loads(line)
                except (ValueError, TypeError):  # cut short by a kill
                    continue
                self.texts[str(key)] = str(text)
            if len(self.texts) != len(lines):
                write_text(path, "".join(_line(*item) for item in self.texts.items()))

    def add(self, replies: Mapping[str, str]) -> None:
        self.texts.update(replies)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write("".join(_line(*item) for item in replies.items()))


def judges_of(
    evaluation: Mapping[str, Any],
    training: Mapping[str, Any],
    trust_remote_code: bool = False,
    built: str | None = None,
) -> JudgeJob:
    """From the sections `evaluation` and `training` of a configuration; `built` is the folder of the miniature language
    model, where the DAG built it. Raises ConfigError where no model is named."""
    asked = evaluation["judge"]
    names = [name for name in (asked["model"], asked["second_model"]) if name is not None]
    if not names:
        raise ConfigError("evaluation.judge.model names no model")
    return JudgeJob(
        models={name: built if built is not None and name == MINIATURE_LANGUAGE else name for name in names},
        prompt_file=Path(asked["prompt_file"]) if asked["prompt_file"] else None,
        max_new_tokens=asked["max_new_tokens"],
        protocol=evaluation["protocol"],
        batch_size=training["eval_batch_size"],
        precision=training["precision"],
        trust_remote_code=trust_remote_code,
    )


def judge_files(
    settings: JudgeJob,
    predictions: Path,
    controls: Mapping[str, Path | None],
    output: Path,
    cache: Path,
    provenance: Mapping[str, Any],
) -> None:
    """Have the answers of a predictions CSV, and those of its `controls` (`blind`, `text_only`), scored; write
    measures/judge.json.

    `cache` is the folder of kept replies. A judge whose replies are all kept is not loaded.
    """
    prompt = JudgePrompt.read(settings.prompt_file)
    scored = apply_protocol(read_predictions(predictions), settings.protocol)
    requests = {"predictions": requests_of(scored)}
    for name, path in controls.items():
        if (rows := rows_of_control(path)) is not None:
            requests[name] = requests_of(apply_protocol(rows, scored.protocol))
    judges = [_judged(name, source, settings, prompt, requests, cache) for name, source in settings.models.items()]
    found = measured(scored, requests, judges)
    found.write(output, {**provenance, "predictions": sha256_file(predictions)})
    for key, result in found.metrics.items():
        LOGGER.info("%s: %s", key, result.reason if result.value is None else f"{result.value:.6f}")


def _judged(
    name: str,
    source: str,
    settings: JudgeJob,
    prompt: JudgePrompt,
    requests: Mapping[str, Sequence[Request]],
    cache: Path,
) -> Judged:
    """What one judge replies to every request."""
    weights = weights_digest(source)
    judge = digest_of([weights, settings.max_new_tokens, str(language_dtype(settings.precision))])
    keys = {one: key_of(judge, prompt, one) for several in requests.values() for one in several if one.answer}
    errors: dict[str, int] = {}
    with FolderLock(cache / judge):
        kept = KeptReplies(cache / judge / "replies.jsonl")
        open_ = {key: prompt.filled(one) for one, key in keys.items() if key not in kept.texts}
        LOGGER.info("judge %s: %d answers, %d of them judged before", name, len(keys), len(keys) - len(open_))
        if open_:
            errors = _Asker(source, settings).ask(open_, kept)
    for reason, count in errors.items():
        LOGGER.warning("judge %s could not be asked about %d answers: %s", name, count, reason)
    signature = (
        f"{name}; weights {weights[:16]}; prompt {prompt.sha256[:16]}; greedy, at most {settings.max_new_tokens} tokens"
    )
    return Judged(
        signature,
        {which: [kept.texts.get(keys.get(one, "")) for one in several] for which, several in requests.items()},
        errors,
    )


@dataclass
class _Asker:
    """A loaded judge."""

    source: str
    settings: JudgeJob
    model: LanguageModel = field(init=False)
    prompt: ChatPrompt = field(init=False)

    def __post_init__(self) -> None:
        self.model = LanguageModel(
            self.source,
            dtype=language_dtype(self.settings.precision),
            trust_remote_code=self.settings.trust_remote_code,
        )
        self.model.to(first_device()).eval()
        self.prompt = ChatPrompt(self.model.tokenizer, num_image_tokens=1)

    def ask(self, texts: Mapping[str, str], kept: KeptReplies) -> dict[str, int]:
        """Ask what `texts` hold by key, in batches of like length; returns how many could not be asked, by reason."""
        errors: dict[str, int] = {}
        order = sorted(texts, key=lambda key: (len(texts[key]), key))
        size = self.settings.batch_size
        for start in range(0, len(order), size):
            kept.add(self._batch({key: texts[key] for key in order[start : start + size]}, errors))
            done = min(start + size, len(order))
            if (start // size + 1) % _LOG_EVERY == 0 or done == len(order):
                LOGGER.info("judged %d of %d", done, len(order))
        return errors

    def _batch(self, texts: Mapping[str, str], errors: dict[str, int]) -> dict[str, str]:
        try:
            return dict(zip(texts, self._replies(list(texts.values())), strict=True))
        except (RuntimeError, ValueError, IndexError, PromptTooLong) as error:
            if is_out_of_memory(error):
                raise EvaluationError(
                    f"out of memory while judging: lower training.eval_batch_size (now {self.settings.batch_size})"
                ) from error
            if len(texts) == 1:
                reason = f"{type(error).__name__}: {error}"
                errors[reason] = errors.get(reason, 0) + 1
                return {}
        found: dict[str, str] = {}
        for key, text in texts.items():  # the others keep their replies
            found |= self._batch({key: text}, errors)
        return found

    @torch.no_grad()
    def _replies(self, texts: Sequence[str]) -> list[str]:
        batch = self.prompt.collate([self.prompt.without_picture(text) for text in texts], side="left")
        ids, mask = (batch[key].to(self.model.model.device) for key in ("input_ids", "attention_mask"))
        generated = self.model.generate(
            self.model.embed(ids),
            mask,
            self.prompt.end_ids,
            max_new_tokens=self.settings.max_new_tokens,
            do_sample=False,
        )
        decoded = self.model.tokenizer.batch_decode(generated, skip_special_tokens=True)
        return [text.strip() for text in decoded]


def _line(key: str, text: str) -> str:
    return json.dumps([key, text], ensure_ascii=True) + "\n"
