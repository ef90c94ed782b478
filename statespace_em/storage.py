"""Saved models: NetCDF with the settings as JSON text, so that no code runs on load."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from statespace_em import emissions, priors
from statespace_em.errors import FileFormatError, ParameterError

FORMAT = 1
STREAM = "stream of "  # before the name of the model, in files that hold a stream
KNOWN = {
    kind.__name__: kind
    for kind in (
        *(getattr(priors, name) for name in ("Dirichlet", "Gamma", "InverseWishart")),
        *(getattr(priors, name) for name in ("MatrixNormal", "NormalInverseGamma", "NormalInverseWishart")),
        *(getattr(emissions, name) for name in ("Categorical", "DiagonalGaussian", "FullGaussian", "Poisson")),
    )
}


def to_json(value: Any) -> Any:
    """Settings as JSON: priors and families become a name with their fields."""
    if is_dataclass(value) and KNOWN.get(type(value).__name__) is type(value):
        return {
            "type": type(value).__name__,
            **{f.name: to_json(getattr(value, f.name)) for f in fields(value)},
        }
    if isinstance(value, Mapping):
        return {"type": "dict", "items": [[to_json(k), to_json(v)] for k, v in value.items()]}
    if isinstance(value, pd.Series | pd.DataFrame | xr.DataArray):
        table = value if isinstance(value, xr.DataArray) else xr.DataArray(value.to_numpy(), value.axes)
        coords = {str(dim): to_json(table[dim].values) for dim in table.dims if dim in table.coords}
        dims = [str(dim) for dim in table.dims]
        return {"type": "DataArray", "dims": dims, "coords": coords, "data": to_json(table.values)}
    if isinstance(value, list | tuple):
        return [_entry(item) if isinstance(item, np.ndarray) and item.ndim == 1 else to_json(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return to_json(value.tolist())
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return {"type": f"unknown:{type(value).__name__}"}


def _entry(values: Any) -> dict[str, Any]:
    """An array that stands among others is an entry with one element a row, not a list of entries."""
    return {"type": "array", "data": values.tolist()}


def from_json(value: Any) -> Any:
    """Inverse of `to_json`; an array is a list, unless it stood in one."""
    if isinstance(value, list):
        return [from_json(item) for item in value]
    if not isinstance(value, dict):
        return value
    kind = value["type"]
    if kind == "dict":
        return {_key(from_json(k)): from_json(v) for k, v in value["items"]}
    if kind == "array":
        mixed = len({isinstance(item, str) for item in value["data"]}) > 1
        return np.array(value["data"], dtype=object if mixed else None)
    if kind == "DataArray":
        return xr.DataArray(value["data"], value["coords"], value["dims"])
    if kind.startswith("unknown:"):
        raise ParameterError(
            f"the model was saved with {kind.removeprefix('unknown:')}, which is not part of this package: "
            "pass it again, as in HMM.load(path, emission=...)."
        )
    if kind not in KNOWN:
        raise FileFormatError(f"the file names {kind!r}, which this version does not know: update statespace_em.")
    settings = {k: from_json(v) for k, v in value.items() if k != "type"}
    return KNOWN[kind](**{k: _tuples(v) if k in ("frozen", "ties") else v for k, v in settings.items()})


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _key(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def in_utc(dataset: xr.Dataset) -> xr.Dataset:
    """Answer of a model in a form that ``to_netcdf`` and ``to_zarr`` take: dates with a time zone as those of UTC.

    The time zone stands in ``attrs["time_zone"]`` of the coordinate, from which it can be had again:
    ``index.tz_localize("UTC").tz_convert(zone)``.

    Examples
    --------
    >>> import pandas as pd
    >>> import statespace_em as sse
    >>> from statespace_em import storage
    >>> y = sse.datasets.nile()
    >>> y.index = pd.date_range("2024-07-01", periods=100, freq="D", tz="Europe/Oslo", name="day")
    >>> found = storage.in_utc(sse.designs.local_level().fit(y).e_step(y))
    >>> str(found.indexes["day"][0]), found["day"].attrs
    ('2024-06-30 22:00:00', {'time_zone': 'Europe/Oslo'})
    """
    for name, coordinate in dataset.coords.items():
        values: Any = coordinate.to_index() if coordinate.ndim == 1 and name in dataset.indexes else None
        if values is None and coordinate.dtype == object and coordinate.ndim:  # of sequences with times of their own
            values = pd.Index(coordinate.values.ravel())
        zone = getattr(values, "tz", None)
        if zone is not None:
            plain = values.tz_convert("UTC").tz_localize(None)
            shaped = xr.Variable(coordinate.dims, plain.to_numpy().reshape(coordinate.shape), {"time_zone": str(zone)})
            dataset = dataset.assign_coords({name: shaped})
    return dataset


def write_dataset(dataset: xr.Dataset, path: str | os.PathLike[str]) -> None:
    """Write NetCDF under a temporary name and rename: an interrupted write leaves nothing half-done."""
    target = Path(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {str(target.parent)!r} to write {target.name} into.")
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
    os.close(handle)
    try:
        in_utc(dataset).to_netcdf(temporary, engine="h5netcdf")
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def reader(kind: str) -> str:
    """Name of the method that reads a file of this kind."""
    return f"{kind.removeprefix(STREAM)}.{'resume' if kind.startswith(STREAM) else 'load'}"


def save_model(
    path: str | os.PathLike[str], kind: str, settings: Mapping[str, Any], params: xr.Dataset, fit: Any
) -> None:
    """Write parameters, settings and how the fit ended."""
    attrs = {
        "statespace_em_format": FORMAT,
        "statespace_em_model": kind,
        "settings": json.dumps({name: to_json(value) for name, value in settings.items()}),
        "fit": json.dumps(fit),
    }
    write_dataset(params.assign_attrs(attrs), path)


def load_model(path: str | os.PathLike[str]) -> tuple[str, dict[str, Any], xr.Dataset, Any]:
    """Read what `save_model` wrote: name of the model, its settings as JSON, parameters, end of the fit.

    Raises
    ------
    FileFormatError
        If the file is not a saved model, or is of a newer version.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"there is no file {str(path)!r}.")
    try:
        with xr.open_dataset(path, engine="h5netcdf") as opened:
            dataset = opened.load()
    except Exception as error:
        raise FileFormatError(f"{str(path)!r} is not a saved model: it cannot be read as NetCDF.") from error
    version = dataset.attrs.pop("statespace_em_format", None)
    if version is None:
        raise FileFormatError(f"{str(path)!r} is not a saved model: it is NetCDF, but not written by model.save.")
    needed = {"statespace_em_model", "settings", "fit"}
    if not isinstance(version, int | np.integer) or not needed <= set(dataset.attrs):
        raise FileFormatError(f"{str(path)!r} is not a saved model, or is damaged: write it again with model.save.")
    if int(version) > FORMAT:
        raise FileFormatError(
            f"{str(path)!r} has format {version}, newer than this version reads ({FORMAT}): update statespace_em."
        )
    kind = str(dataset.attrs.pop("statespace_em_model"))
    settings, fit = json.loads(dataset.attrs.pop("settings")), json.loads(dataset.attrs.pop("fit"))
    return kind, settings, dataset, fit
