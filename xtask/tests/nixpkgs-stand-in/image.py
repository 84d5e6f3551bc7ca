"""Writes a docker-archive: a layer for each store path that is needed, then one for the links and folders of the root."""

import hashlib
import io
import json
import os
import subprocess
import tarfile
from pathlib import Path


def store_paths():
    """What the closure files name. An entry is a path, what it was made from, a count, and as many paths."""
    paths = set()
    for file in Path().glob("closure-*"):
        lines = iter(file.read_text().splitlines())
        for path in lines:
            paths.add(path)
            next(lines)
            for _ in range(int(next(lines))):
                next(lines)
    return sorted(paths)


def add(tar, path, name, owner=None):
    """Adds a file or a folder with all in it; `owner` in place of the one it has."""
    info = tar.gettarinfo(path, name)
    info.mtime, info.uname, info.gname = 1, "", ""
    if owner is not None:
        info.uid = info.gid = owner
    if info.isfile():
        with open(path, "rb") as file:
            tar.addfile(info, file)
        return
    tar.addfile(info)
    if info.isdir():
        for child in sorted(path.iterdir()):
            add(tar, child, f"{name}/{child.name}", owner)


def layer(fill):
    """A layer's bytes and their digest."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
        fill(tar)
    return file.getvalue(), hashlib.sha256(file.getvalue()).hexdigest()


def of_store(path):
    def fill(tar):
        # As dockerTools writes them: what a layer does not name gets whatever mode the runtime gives it.
        for name in ("nix", "nix/store"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode, folder.mtime = tarfile.DIRTYPE, 0o755, 1
            tar.addfile(folder)
        add(tar, path, str(path).lstrip("/"), owner=0)

    return layer(fill)


def of_root(contents, commands):
    root = Path("root")
    root.mkdir()
    for package in contents:
        for folder, _, files in os.walk(package):
            inside = root / Path(folder).relative_to(package)
            inside.mkdir(exist_ok=True)
            for file in files:
                (inside / file).symlink_to(Path(folder) / file)
    subprocess.run(["bash", "-euc", commands], cwd=root, check=True)

    def fill(tar):
        for child in sorted(root.iterdir()):
            add(tar, child, child.name)

    return layer(fill)


def main():
    env = os.environ
    layers = [of_store(Path(path)) for path in store_paths()]
    layers.append(of_root(env["contents"].split(), env["fakeRootCommands"]))
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "created": env["created"],
            "config": json.loads(env["config"]),
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for _, digest in layers]},
            "history": [{"created": env["created"]} for _ in layers],
        },
        sort_keys=True,
    ).encode()
    config_name = hashlib.sha256(config).hexdigest() + ".json"
    manifest = [
        {
            "Config": config_name,
            "RepoTags": [f"{env['repository']}:{env['tag']}"],
            "Layers": [f"{digest}/layer.tar" for _, digest in layers],
        }
    ]
    with tarfile.open(env["out"], "w", format=tarfile.GNU_FORMAT) as tar:
        files = [(f"{digest}/layer.tar", data) for data, digest in layers]
        for name, data in [*files, (config_name, config), ("manifest.json", json.dumps(manifest).encode())]:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1
            tar.addfile(info, io.BytesIO(data))


main()
