"""Loss curves: a stage of a single logged step has a point to be seen, too."""

from __future__ import annotations

from pathlib import Path

import pytest

from panollava.training import curves


@pytest.mark.parametrize("steps", [1, 3])
def test_every_curve_can_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    lines: list[object] = []
    monkeypatch.setattr(curves.plt, "close", lambda figure: lines.extend(figure.axes[0].lines))
    history = tmp_path / "history.csv"
    history.write_text("step,split,loss\n" + "".join(f"{step},train,{1 / step}\n" for step in range(1, steps + 1)))
    curves.plot_loss_curves(history, tmp_path / "curves.png", "S")
    (line,) = lines
    assert len(line.get_xdata()) == steps  # type: ignore[attr-defined]
    assert ("-" in line.get_linestyle() and steps > 1) or line.get_marker() == "o"  # type: ignore[attr-defined]
    assert (tmp_path / "curves.png").stat().st_size > 1000
