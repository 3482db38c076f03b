"""Make the tables of the documentation from what the package knows of itself: one fact has one home.

``{teddytok} arguments`` and so on in a page becomes the Markdown that `TABLES` makes.
"""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

import teddytok_rs
from teddytok_rs import TokenizationArgs
from teddytok_rs.config.args import FACTS
from teddytok_rs.config.presets import PRESETS
from teddytok_rs.errors.catalogue import KINDS

if TYPE_CHECKING:
    from sphinx.application import Sphinx

EXAMPLES = Path(__file__).parents[2] / "tests" / "spec" / "examples.json"


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def code(value: object) -> str:
    return f"`{json.dumps(value)}`"


def arguments() -> str:
    rows = []
    for name, field in TokenizationArgs.model_fields.items():
        default = "required" if field.is_required() else code(field.default)
        takes = FACTS[name].takes
        rows.append([f"`{name}`", default, f"{field.description}<br>*Takes {takes}.*"])
    return table(["argument", "default", "meaning"], rows)


def examples() -> str:
    def one_by_one(numbers: list[float]) -> str:
        return " ".join(f"{number:.3g}" for number in numbers)

    rows = [
        [
            example["name"],
            one_by_one(example["x"]),
            "<br>".join(f"`{key}`&nbsp;{json.dumps(value)}" for key, value in example["args"].items()),
            one_by_one(example["gene_ids"]),
            one_by_one(example["values"]),
        ]
        for example in json.loads(EXAMPLES.read_text(encoding="utf-8"))["examples"]
    ]
    return table(["what it shows", "values of the cell", "arguments", "gene_ids", "values"], rows)


def presets() -> str:
    text = ""
    for name, preset in PRESETS.items():
        rows = [[f"`{key}`", code(setting.value), setting.source] for key, setting in preset.settings.items()]
        rows += [[f"`{key}`", code(file.value), file.source] for key, file in preset.files_of("").items()]
        yours = [key for key in ("tokenizer_name_or_path", *preset.needs) if key not in preset.files]
        rows += [[f"`{key}`", "yours", "the model's own file"] for key in yours]
        sizes = f" Sizes: {', '.join(f'`{name}:{size}`' for size in preset.sizes)}; `{name}` is the last." * bool(
            preset.sizes
        )
        text += f"## {name}\n\n{preset.model}.{sizes}\n\n{table(['argument', 'value', 'published'], rows)}\n\n"
        text += f"**Where it differs from the model's own code.** {preset.differs}\n\n"
    return text


def errors() -> str:
    def said(template: str) -> str:
        """Name the facts of a message, but not the clauses that only some messages have."""
        always = re.sub(r"(?<=[^\s(])\{\w+\}", "", template.removeprefix("{where}"))
        return re.sub(r"\{(\w+)[^}]*\}", lambda field: f"*&lt;{field[1].replace('_', ' ')}&gt;*", always)

    text = ""
    for kind, row in KINDS.items():
        message = " ".join(said(part) for part in (row.what, row.hint) if not re.fullmatch(r"\{\w+\}\.", part))
        text += f"## {kind}\n\n{{py:class}}`~teddytok_rs.{row.raises.__name__}`\n\n> {message}\n\n"
        if row.cause:
            text += f"**Usual cause.** {row.cause}\n\n"
    return text


def other_names() -> str:
    """Describe the public names that the page does not."""
    page = (Path(__file__).parents[1] / "api.md").read_text(encoding="utf-8")
    text = ""
    for name in teddytok_rs.__all__:
        if f"teddytok_rs.{name}\n" not in page:
            thing = getattr(teddytok_rs, name)
            kind = "class" if inspect.isclass(thing) else "function"
            kind = "exception" if kind == "class" and issubclass(thing, Exception) else kind
            text += f".. auto{kind}:: teddytok_rs.{name}\n"
    return f"## More\n\n```{{eval-rst}}\n{text}```\n" if text else ""


TABLES = {
    "arguments": arguments,
    "errors": errors,
    "examples": examples,
    "other_names": other_names,
    "presets": presets,
}


class TeddytokDirective(SphinxDirective):
    """Parse the Markdown of a table where the directive stands."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        lines = TABLES[self.arguments[0]]().splitlines()
        here = nodes.container()
        self.state.nested_parse(StringList(lines, source=__file__), self.content_offset, here, match_titles=True)
        return here.children


RETURNS: dict[str, str] = {}


def take_returns(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:  # noqa: ARG001
    """Take a section *Returns* out: its words are no type, which napoleon looks for, and the signature has one."""
    if "Returns" in lines:
        start = lines.index("Returns")
        end = next((i for i in range(start + 2, len(lines)) if not lines[i].strip()), len(lines))
        RETURNS[name] = " ".join(line.strip() for line in lines[start + 2 : end])
        del lines[start:end]


def put_returns(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:  # noqa: ARG001
    """Put it back as a field, before the errors, the examples and what else follows the parameters."""
    if name in RETURNS:
        after = (i for i, line in enumerate(lines) if line.startswith((":raises", ".. rubric", ">>>")))
        lines[(at := next(after, len(lines))) : at] = ["", f":returns: {RETURNS.pop(name)}", ""]


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("teddytok", TeddytokDirective)
    app.connect("autodoc-process-docstring", take_returns, priority=400)  # before napoleon
    app.connect("autodoc-process-docstring", put_returns, priority=600)  # after it
    return {"parallel_read_safe": True, "parallel_write_safe": True}
