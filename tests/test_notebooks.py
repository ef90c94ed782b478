"""The notebooks run from the first cell to the last in a fresh kernel of this very environment."""

import os
import re
import sys
import warnings
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = ("noisy_gappy_track", "regimes_in_daily_returns")
PLACES = re.compile(r"(/home/|/root/|/tmp/|/opt/|/work/|/Users/|[A-Z]:\\+Users|site-packages)")


def outputs(notebook):
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def complaints(notebook):
    """Errors (a figure that fails to draw is one, though its cell succeeds) and whatever went to stderr."""
    found = [f"{o.ename}: {o.evalue}" for o in outputs(notebook) if o.output_type == "error"]
    return found + [o.text for o in outputs(notebook) if o.output_type == "stream" and o.name == "stderr"]


def read(name):
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def executed(notebook):
    """Execute with ``sys.executable``, whatever kernels the machine has installed under the name python3."""
    with warnings.catch_warnings():  # of zmq, tornado and jupyter, which are not ours
        warnings.simplefilter("ignore")
        from jupyter_client.kernelspec import KernelSpec
        from jupyter_client.manager import AsyncKernelManager
        from nbclient import NotebookClient

        class ThisPython(AsyncKernelManager):
            @property
            def kernel_spec(self):
                argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
                return KernelSpec(argv=argv, display_name="this Python", language="python")

        client = NotebookClient(
            notebook,
            timeout=None,
            kernel_manager_class=ThisPython,
            resources={"metadata": {"path": str(FOLDER)}},
        )
        return client.execute(env={**os.environ, "MPLBACKEND": "module://matplotlib_inline.backend_inline"})


def test_every_notebook_is_tested():
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == sorted(NOTEBOOKS)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_stored_outputs(name):
    notebook = read(name)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), "not run from top to bottom"
    assert any("image/png" in output.get("data", {}) for output in outputs(notebook))
    assert complaints(notebook) == []
    assert notebook.metadata.kernelspec.name == "python3"
    assert not any("execution" in cell.metadata for cell in notebook.cells), "execution times make needless changes"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_stored_file_is_small_and_names_no_machine(name):
    text = (FOLDER / f"{name}.ipynb").read_text(encoding="utf-8")
    assert len(text) < 1_500_000
    readable = re.sub(r'"image/png": "[^"]*"', "", text)
    assert PLACES.findall(readable) == []


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_runs(name):
    notebook = read(name)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    executed(notebook)
    assert complaints(notebook) == []
    assert outputs(notebook)


def test_kernel_is_this_python():
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("import sys; print(sys.executable)")])
    executed(notebook)
    assert outputs(notebook)[0].text.strip() == sys.executable
