"""MkDocs hook: generate the pages of the docs site that are not files in docs/.

Command line: the --help of each command. Python API: a page for each package, from its docstrings. Notebooks,
benchmarks, the changelog and other files outside docs/ are copied.
"""

import contextlib
import io
import os
from pathlib import Path, PurePosixPath

import nbconvert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "i2l_meshnet"
COPIED = {
    "benchmarks.md": "benchmarks/README.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "security-policy.md": "SECURITY.md",
}
RECIPE = "train tiny"
"""All recipes of `train` have the same options, so one help text is enough."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Replace the entry `api/` of the navigation by the pages of the Python API."""
    for section in config.nav or []:
        for entries in section.values():
            for entry in entries:
                if "api/" in entry.values():
                    entry["Python API"] = [{title: path} for path, (title, _) in _api_pages().items()]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""

    def add(path: str, content: str | bytes) -> None:
        files.append(File.generated(config, path, content=content))

    for page, original in COPIED.items():
        text = (ROOT / original).read_text(encoding="utf-8")
        add(page, text.replace("](../docs/", "](").replace("](docs/", "]("))
    add("command-line.md", _command_line())
    for path, (_, content) in _api_pages().items():
        add(path, content)
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        page = f"notebooks/{notebook.stem}.md"
        prefix = f"{notebook.stem}_files"
        content, made = nbconvert.MarkdownExporter().from_filename(
            str(notebook), resources={"output_files_dir": prefix, "unique_key": notebook.stem}
        )
        add(page, content)
        for name, data in made["outputs"].items():
            add(f"notebooks/{PurePosixPath(name).as_posix()}", data)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Change links that work in the repository, such as ../benchmarks/README.md, to the pages of the site."""
    if page.file.src_uri in COPIED:
        markdown = markdown.replace("](docs/", "](")
    for target, original in COPIED.items():
        markdown = markdown.replace(f"](../{original}", f"]({target}")
    return markdown


def _api_pages() -> dict[str, tuple[str, str]]:
    """Title and text of each API page, by path."""
    pages = {"api/index.md": ("Overview", _overview())}
    packages = sorted(path.parent for path in SOURCE.rglob("__init__.py") if path.parent != SOURCE)
    loose = [path for path in sorted(SOURCE.glob("*.py")) if path.stem not in ("__init__", "cli")]
    pages["api/common.md"] = ("common", _api_page("Common parts", loose))
    for package in packages:
        modules = sorted(path for path in package.glob("*.py") if path.stem != "__init__")
        if modules:
            name = ".".join(package.relative_to(SOURCE).parts)
            pages[f"api/{name}.md"] = (name, _api_page(f"i2l_meshnet.{name}", modules))
    return pages


def _overview() -> str:
    import i2l_meshnet

    lines = [
        "# Python API",
        "",
        "These names can be imported with `from i2l_meshnet import …`. Each package has its own page.",
        "",
    ]
    lines += ["```python", "from i2l_meshnet import MeshPredictor", ""]
    lines += [
        "predictor = MeshPredictor.load()",
        'people = predictor("photo.jpg")',
        'people.save("results")',
        "```",
        "",
    ]
    lines += [f"- [`{name}`][{getattr(i2l_meshnet, name).__module__}.{name}]" for name in i2l_meshnet.__all__]
    return "\n".join(lines) + "\n"


def _api_page(title: str, modules: list[Path]) -> str:
    lines = [f"# {title}", ""]
    for path in modules:
        name = ".".join(("i2l_meshnet", *path.relative_to(SOURCE).with_suffix("").parts))
        lines += [f"## {path.stem}", "", f"::: {name}", "    options:", "      show_root_heading: false", ""]
    return "\n".join(lines)


def _command_line() -> str:
    """The help text of every command."""
    os.environ["COLUMNS"] = "80"  # fits the page
    from i2l_lab.cli import LAB
    from i2l_meshnet.cli import PRODUCT

    lines = ["# Command line", "", "The output of `i2l-meshnet COMMAND --help` and `i2l-lab COMMAND --help`.", ""]
    for program, more in ((PRODUCT, [RECIPE]), (LAB, [])):
        names = sorted([*program.examples, *more], key=lambda name: program.names.index(name.split()[0]))
        for name in names:
            text = io.StringIO()
            with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
                program.main([*name.split(), "--help"])
            shown = "\n".join(line.rstrip() for line in text.getvalue().splitlines())
            title = name if program is PRODUCT else f"{program.name} {name}"
            lines += [f"## {title}", "", "```text", shown.strip(), "```", ""]
    return "\n".join(lines)
