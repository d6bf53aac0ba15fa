"""No writer goes round `files.atomic_path`: our sources are searched for everything that writes a file."""

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGES = [Path(__file__).parents[2] / "src" / name for name in ("i2l_meshnet", "i2l_lab")]
WRITERS = {
    *("write_text", "write_bytes", "touch", "imwrite", "savefig", "save_file", "save", "savez", "savez_compressed"),
    *("savetxt", "tofile", "dump", "copyfileobj", "copyfile", "copy2", "copytree", "extract"),
    *("extractall", "VideoWriter", "symlink_to", "hardlink_to", "to_csv", "to_parquet", "save_model"),
    *("ZipFile", "TarFile", "open", "fdopen", "memmap", "open_memmap", "write_table"),
}
OURS = {"write_bytes", "write_picture"}
"""Functions of `files` that are named like a writer, and are one that goes by `atomic_path`."""
ALLOWED = {
    "assets.py:_pip": "in the scratch folder, which is renamed when it is whole",
    "assets.py:_extract": "in the scratch folder, which is renamed when it is whole",
    "prediction/results.py:PicturePrediction._write": "in the folder of `staged`, which syncs all before it moves any",
    "prediction/results.py:PicturePrediction._draw": "in the folder of `staged`, which syncs all before it moves any",
    "serving/app.py": "uploads, in the server's own temporary folder under names of its own",
    "exporting/graph.py": "takes the path of its caller, who goes by atomic_path",
    "fleet/table.py:TableFolder._write": "into memory, for an object store that takes files whole",
    "training/progress.py:CsvLog.scalars": "one more row; a run that goes on drops a torn one",
    "video/encode.py:VideoWriter.__init__": "takes the path of its caller, who goes by atomic_path",
    "video/encode.py:join": "takes the path of its caller, who goes by atomic_path",
    "video/job.py:ClipJob._draw_stretch": "goes by atomic_path for several files at once, in a stack",
    "video/work.py:Column.__setitem__": "scratch arrays, thrown away and made anew by every run",
    "video/work.py:Column.create": "scratch arrays, thrown away and made anew by every run",
}
"""Where a file is written otherwise (a module, or a function of it), and why it may be."""


def written(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """(function, line) of each call that writes a file outside of a `with atomic_path(...)`."""

    def visit(node: ast.AST, function: str, safe: bool) -> Iterator[tuple[str, int]]:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            function = f"{function}.{node.name}".lstrip(".")
        if isinstance(node, ast.With):
            safe = safe or any("atomic_path" in ast.unparse(item.context_expr) for item in node.items)
        if isinstance(node, ast.Call) and not safe and writes(node):
            yield function, node.lineno
        for child in ast.iter_child_nodes(node):
            yield from visit(child, function, safe)

    yield from visit(tree, "", False)


def writes(call: ast.Call) -> bool:
    """Whether a call is one of a writer of files. Files opened to be read, and our own objects, are none."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name not in WRITERS or (isinstance(call.func, ast.Name) and name in OURS):
        return False
    if name in ("open", "fdopen", "ZipFile", "TarFile", "memmap", "open_memmap"):
        texts = [value.value for value in ast.walk(call) if isinstance(value, ast.Constant)]
        modes = [text for text in texts if isinstance(text, str) and 0 < len(text) <= 4 and set(text) <= set("rwaxbt+")]
        return any(set(mode) & set("wax+") for mode in modes)
    if name in ("save", "dump", "write_table"):
        return ast.unparse(call.func).startswith(("torch.", "np.", "onnx.", "json.", "pickle.", "pq.", "converted."))
    return True


def test_no_writer_goes_round_atomic_path() -> None:
    found, used = [], set()
    for package, path in [(folder, path) for folder in PACKAGES for path in sorted(folder.rglob("*.py"))]:
        module = path.relative_to(package).as_posix()
        # Tools are run by hand in a checkout.
        if module == "files.py" or module.startswith("tools/"):
            continue
        for function, line in written(ast.parse(path.read_text(encoding="utf-8"))):
            keys = {module, f"{module}:{function}"} & ALLOWED.keys()
            used |= keys
            if not keys:
                found.append(f"{module}:{line} in {function or 'the module'}")
    assert found == [], "write these by files.atomic_path, or argue for them in ALLOWED"
    assert used == ALLOWED.keys(), "nothing is written there any more: take it out of ALLOWED"


def test_the_search_finds_writers() -> None:
    calls = "\n".join(
        [
            "path.write_text('x')",
            "open(path, 'w')",
            "path.open('ab')",
            "np.savez(path, a=1)",
            "cv2.imwrite(name, picture)",
            "torch.save(state, path)",
            "zipfile.ZipFile(path, 'w')",
            "av.open(path, 'w', format='mp4')",
            "json.dump(1, file)",
            "VideoWriter(path, 1, 2, rate)",
        ]
    )
    assert [line for _, line in written(ast.parse(calls))] == list(range(1, 11))
    reading = "open(path)\npath.open('rb')\nwrite_bytes(path, b'')\nself.save()\n"
    assert list(written(ast.parse(reading + "with atomic_path(path) as other:\n    other.write_text('')"))) == []
