"""`prepare` and `views`: CSVs and panoramas, outside the DAG."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast, get_args

import typer

from panollava.cli.common import image_cache_of
from panollava.errors import DataError
from panollava.files import refuse_overwriting
from panollava.settings.choices import FormatName
from panollava.views.rendering import Renderer, Rendering
from panollava.views.strategies import CropStrategy


def add_to(app: typer.Typer) -> None:
    app.command()(prepare)
    app.command()(views)


def prepare(
    csv: Annotated[
        list[Path],
        typer.Argument(metavar="CSV…", help="CSVs, JSON or Parquet, concatenated; with --from: pictures to convert."),
    ],
    output_dir: Annotated[
        Path, typer.Option(help="Receives prepared.csv and rejected.csv; with --from: a PNG for each panorama.")
    ],
    format: Annotated[str, typer.Option(help=f"One of {', '.join(get_args(FormatName))}.")] = "auto",
    max_rejected_fraction: Annotated[
        float, typer.Option(min=0, max=1, help="More than this share rejected: exit 1.")
    ] = 0.05,
    allow_private_addresses: Annotated[
        bool, typer.Option("--allow-private-addresses", help="Fetch URLs of this machine and its network, too.")
    ] = False,
    source: Annotated[
        str | None,
        typer.Option("--from", help="Convert pictures to panoramas: cubemap, dual_fisheye or perspective."),
    ] = None,
    height: Annotated[int | None, typer.Option(min=8, max=16384, help="--from: height of a panorama, pixels.")] = None,
    faces: Annotated[str, typer.Option(help="--from cubemap: order of a strip's faces.")] = "FRBLUD",
    fov_deg: Annotated[
        float | None, typer.Option(help="--from: a photograph's horizontal field of view, or each fisheye's (190).")
    ] = None,
    yaw_deg: Annotated[float, typer.Option(help="--from perspective: where it looks, to the right.")] = 0.0,
    pitch_deg: Annotated[float, typer.Option(help="--from perspective: where it looks, up.")] = 0.0,
) -> None:
    """Check rows and images of CSVs as the DAG does, or convert other pictures of the sphere to panoramas.

    Example: `panollava prepare train.csv --output-dir prepared`
    """
    if source is not None:
        from panollava.data.convert import convert_files
        from panollava.logs import start_log

        start_log()
        convert_files(
            source, csv, output_dir, height=height, faces=faces, fov_deg=fov_deg, yaw_deg=yaw_deg, pitch_deg=pitch_deg
        )
        return
    from panollava.data.download import ImageCache
    from panollava.data.prepare import prepare_csv
    from panollava.logs import start_log

    start_log()
    prepared, rejected = output_dir / "prepared.csv", output_dir / "rejected.csv"
    refuse_overwriting([prepared, rejected], csv)
    prepare_csv(
        csv,
        prepared,
        rejected,
        format=format,
        max_rejected_fraction=max_rejected_fraction,
        root=Path.cwd(),
        fetch=ImageCache(image_cache_of(Path.cwd()), allow_private=allow_private_addresses),
    )


def views(
    panorama: Annotated[
        Path,
        typer.Argument(help="An equirectangular image, about 2:1 (or a part of one that its GPano metadata place)."),
    ],
    output_dir: Annotated[Path, typer.Option(help="Receives view_00.png …, views.json, contact_sheet.png.")],
    strategy: Annotated[str, typer.Option(help=f"One of {', '.join(get_args(CropStrategy))}.")] = "anyres_e2p",
    fov_deg: Annotated[float, typer.Option(help="Horizontal field of view in degrees.")] = 90.0,
    overlap_ratio: Annotated[float, typer.Option(help="Share of a view that its neighbour sees too.")] = 0.5,
    image_size: Annotated[int, typer.Option(min=8, max=4096, help="Side of a view in pixels.")] = 256,
    antialias: Annotated[
        bool, typer.Option("--antialias/--no-antialias", help="Average a pixel's area, or sample its centre once.")
    ] = True,
    max_patches: Annotated[int, typer.Option(help="Most views of anyres and anyres_max, the global one counted.")] = 9,
    poles: Annotated[
        bool, typer.Option("--poles/--no-poles", help="Cubemap's views up and down, or its sides alone.")
    ] = True,
    level: Annotated[
        bool, typer.Option("--level/--no-level", help="Take the camera's pitch and roll out, by GPano metadata.")
    ] = True,
    north: Annotated[
        bool, typer.Option("--north/--no-north", help="Turn north, by GPano metadata, into the middle.")
    ] = False,
    renderer: Annotated[
        str, typer.Option(help=f"Who cuts perspective views: {' or '.join(get_args(Renderer))}.")
    ] = "panollava",
) -> None:
    """Draw what the model would see of a panorama.

    Example: `panollava views pano.jpg --strategy anyres_e2p --output-dir sheet`
    """
    from panollava.views.contact_sheet import write_views
    from panollava.views.strategies import plan_views

    if not panorama.is_file():
        raise DataError(f"{panorama}: no such file")
    if renderer not in get_args(Renderer):
        raise typer.BadParameter(f"{renderer!r} is not one of {', '.join(get_args(Renderer))}", param_hint="--renderer")
    plan = plan_views(
        strategy, fov_deg=fov_deg, overlap_ratio=overlap_ratio, anyres_max_patches=max_patches, cubemap_poles=poles
    )
    rendering = Rendering(antialias, "auto" if level else "off", north, cast(Renderer, renderer))
    write_views(panorama, plan, (image_size, image_size), rendering, output_dir)
    print(f"{len(plan)} views of {panorama}: {output_dir}")
