"""What MkDocs calls while it builds: plots drawn from the code, formulas as MathML, guides found.

Formulas are written as GitHub shows them too: a fence named ``math``, or ``$`...`$`` in a line.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"^```math\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FENCE = re.compile(r"^( *```\w+)((?: +\w+=\"[^\"\n]*\")+)[ ]*$", re.MULTILINE)
FOR_TESTS = re.compile(r" +(?:notest|background|exit|tests)=\"[^\"]*\"")
INLINE = re.compile(r"\$`([^`]+)`\$")


def on_config(config: Any) -> Any:
    """Every page in ``guides`` stands in the navigation, in the order of its name."""
    folder = Path(config.docs_dir) / "guides"
    pages = [f"guides/{path.name}" for path in sorted(folder.glob("*.md"))]
    for entry in config.nav:
        if "Guides" in entry:
            entry["Guides"] = sorted(pages, key=lambda page: (page != "guides/index.md", page))
    return config


def on_files(files: Any, config: Any) -> Any:
    """Draw the plots that the pages show."""
    sys.path.insert(0, str(ROOT))
    from docs.plots import PLOTS, svg  # noqa: PLC0415 - found only now

    for name, draw in PLOTS.items():
        path = f"explanation/plots/{name}.svg"
        files.append(File.generated(config, path, content=svg(draw)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Formulas become MathML, which every browser draws by itself; fences lose what is for tests.

    A fence with options that the highlighter does not know would be taken for text.
    """
    markdown = FENCE.sub(lambda found: found[1] + FOR_TESTS.sub("", found[2]), markdown)
    markdown = BLOCK.sub(
        lambda found: f'\n<div class="formula">{convert(found[1], display="block")}</div>\n',
        markdown,
    )
    # At the start of a line a bare <math> would end the paragraph.
    return INLINE.sub(lambda found: f"<span>{convert(found[1])}</span>", markdown)
