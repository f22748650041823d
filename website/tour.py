# SPDX-License-Identifier: Apache-2.0
"""Executes the tour, docs/tour.md, as a notebook, and puts what it printed and drew into the page."""

import logging
import tempfile

import jupytext
import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbconvert import MarkdownExporter

from website.pages import Site


def run_tour(site: Site, page: str = "tour.md") -> None:
    """Replaces the page by the executed one, and writes the notebook beside it.

    Raises:
        CellExecutionError: a cell fails.
    """
    path = site.folder / page
    notebook = jupytext.reads(path.read_text(), fmt="md")
    with tempfile.TemporaryDirectory() as scratch:
        kernel = AsyncKernelManager(kernel_name="python3", transport="ipc", ip=f"{scratch}/socket")  # opens no port
        logging.getLogger("traitlets").setLevel(logging.ERROR)  # its complaint about a socket that is closed already
        NotebookClient(notebook, kernel, timeout=600, resources={"metadata": {"path": scratch}}).execute()
    nbformat.write(notebook, path.with_suffix(".ipynb"))
    text, files = MarkdownExporter().from_notebook_node(notebook)
    for name, content in files["outputs"].items():
        (site.folder / name).write_bytes(content)
    text = text.replace("![png]", "![drawn by the code above]")
    site.write(page, f"{text}\n\n[The notebook, executed]({path.stem}.ipynb)\n")
